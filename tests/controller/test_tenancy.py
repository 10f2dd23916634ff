"""Which URLs a tenant's patterns cover."""

import pytest

from chassis.resource_url import InvalidResource
from chassis.spiffe_id import Workload
from controller.api.auth_server import Tenant
from controller.reconcile.tenancy import is_member, matches, permits, target
from tests.controller.samples import server, tenant

WORKLOAD = Workload("mcp-servers", "notes")


@pytest.mark.parametrize(
    ("pattern", "resource"),
    [
        ("https://notes.example.com/mcp", "https://notes.example.com/mcp"),
        ("https://notes.example.com/mcp", "HTTPS://Notes.Example.com:443/mcp/"),
        ("https://notes.example.com/mcp", "https://notes.example.com/%6dcp"),
        ("https://*.example.com/*", "https://notes.example.com/mcp"),
        ("https://*.example.com/*", "https://notes.example.com"),
        ("https://*.example.com/*", "https://notes.example.com/a/b/c"),
        ("https://{name}.{namespace}.example.com/*", "https://notes.mcp-servers.example.com/x"),
        ("https://example.com/{namespace}/*", "https://example.com/mcp-servers/notes"),
        ("https://example.com:8443/*", "https://example.com:8443/mcp"),
    ],
)
def test_a_pattern_covers(pattern: str, resource: str) -> None:
    assert matches(pattern, resource, WORKLOAD)


@pytest.mark.parametrize(
    ("pattern", "resource"),
    [
        ("https://*.example.com/*", "https://example.com/mcp"),  # a label is missing
        ("https://*.example.com/*", "https://a.b.example.com/mcp"),  # one label too many
        ("https://*.example.com/*", "https://notes.example.com:8443/mcp"),
        ("https://*.example.com/*", "http://notes.example.com/mcp"),
        ("https://n*.example.com/*", "https://notes.example.com/mcp"),  # not a whole label
        ("https://notes.example.com/m*", "https://notes.example.com/mcp"),  # not after a slash
        ("https://notes.example.com/*/x", "https://notes.example.com/mcp/x"),
        ("https://notes.example.com/mcp", "https://notes.example.com/mcp/more"),
        ("https://notes.example.com/mcp/*", "https://notes.example.com/mcp2"),
        ("https://example.com/{namespace}/*", "https://example.com/others/notes"),
        ("https://example.com/mcp-servers/*", "https://example.com/mcp-servers/../others/x"),
        ("https://example.com/mcp-servers/*", "https://example.com/mcp-servers/%2e%2e/others/x"),
        ("https://example.com/mcp-servers/*", "https://example.com/mcp-servers/..%2Fothers"),
        ("https://example.com/{unknown}/*", "https://example.com/{unknown}/x"),
        ("https://example.com/*", "https://example.com./mcp"),
        ("https://example.com/*", "https://example.com/mcp?x=1"),
    ],
)
def test_a_pattern_does_not_cover(pattern: str, resource: str) -> None:
    assert not matches(pattern, resource, WORKLOAD)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://a..example.com/", "https://example.com/a//b",
        "https://example.com/./a", "https://example.com/a/..", "https://example.com/%2E./a",
        "https://example.com/a%2fb", "https://example.com/a%5cb", "https://example.com/a;b/..",
        "https://example.com/?q", "https://user@example.com/", "https://example.com/#f", "x", "",
    ],
)  # fmt: skip
def test_what_could_be_taken_for_another_url_is_no_target(url: str) -> None:
    with pytest.raises(InvalidResource):
        target(url)


def test_membership_goes_by_names_or_by_labels_and_nobody_belongs_without() -> None:
    by_label = Tenant.of(tenant(namespaces={"matchLabels": {"team": "tools", "tier": "one"}}))
    assert is_member(by_label, "any", {"team": "tools", "tier": "one", "more": "x"})
    assert not is_member(by_label, "any", {"team": "tools"})
    assert not is_member(by_label, "any", None)
    assert is_member(Tenant.of(tenant()), "others", None)
    assert not is_member(Tenant.of(tenant()), "strangers", {"team": "tools"})
    assert not is_member(Tenant.of(tenant(namespaces={})), "others", {"team": "tools"})


@pytest.mark.parametrize(
    "changes",
    [
        {"servers": ["other"]},
        {"upstreams": ["slack"]},
        {"release": ["Attach"]},
        {"resources": ["https://else.example.com/*"]},
        {"resources": []},
        {"upstreams": []},
    ],
)
def test_every_member_of_a_tenant_must_permit(changes: dict[str, list[str]]) -> None:
    assert permits(Tenant.of(tenant()), server(), None)
    assert not permits(Tenant.of(tenant(**changes)), server(), None)
