"""The grammar of SPIFFE IDs, narrowed to workloads: one full match on the raw string."""

import pytest

from chassis.spiffe_id import (
    InvalidSpiffeId,
    Workload,
    is_dns_label,
    is_trust_domain,
    parse_workload,
)
from tests.support.spiffe_ids import LABEL, NOT_IDS, TD


@pytest.mark.parametrize("text", NOT_IDS, ids=ascii)
def test_nothing_but_a_workload_of_this_trust_domain_is_read(text: str) -> None:
    with pytest.raises(InvalidSpiffeId) as refused:
        parse_workload(text, trust_domain=TD)
    assert len(text) < 20 or text not in str(refused.value)


@pytest.mark.parametrize(
    ("trust_domain", "namespace", "name"),
    [
        (TD, "mcp-servers", "github"),
        (TD, "a", "b"),
        (TD, "0", "1"),
        (TD, LABEL, LABEL),
        (TD, "a--b", "xn--bcher-kva"),
        ("a", "a", "b"),
        ("1.2.3.4", "a", "b"),
        ("a_b.example", "a", "b"),
        ("example..org", "a", "b"),
        (".example.org", "a", "b"),
        ("example.org.", "a", "b"),
        ("-example.org", "a", "b"),
        ("a" * 255, "a", "b"),
    ],
)
def test_a_workloads_id_is_read_back_as_it_was_written(
    trust_domain: str, namespace: str, name: str
) -> None:
    workload = Workload(namespace, name)
    text = workload.spiffe_id(trust_domain)
    assert parse_workload(text, trust_domain=trust_domain) == workload
    assert is_trust_domain(trust_domain)


@pytest.mark.parametrize(
    "text",
    [
        "", "BAD", "Example.org", "spiffe://td", "spiffe://td/path", "td/path", "td:443", "u@td",
        "td\n", " td", "t d", "t%64", "\u0442d", "a" * 256,
    ],
    ids=ascii,
)  # fmt: skip
def test_a_trust_domain_is_configured_without_scheme_path_or_capitals(text: str) -> None:
    assert not is_trust_domain(text)


def test_no_trust_domain_is_a_prefix_of_another() -> None:
    with pytest.raises(InvalidSpiffeId):
        parse_workload("spiffe://example.org.evil/ns/a/mcpserver/b", trust_domain="example.org")
    with pytest.raises(InvalidSpiffeId):
        parse_workload("spiffe://exampleXorg/ns/a/mcpserver/b", trust_domain="example.org")


@pytest.mark.parametrize("text", ["", "-", "a-", "-a", "A", "a.b", "a_b", LABEL + "a", "a\n", "é"])
def test_what_is_no_dns_label_names_no_workload(text: str) -> None:
    assert not is_dns_label(text)
