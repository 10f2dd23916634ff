"""The grammar of SPIFFE IDs, narrowed to workloads: one full match on the raw string."""

import pytest

from chassis.spiffe_id import (
    InvalidSpiffeId,
    Workload,
    is_dns_label,
    is_trust_domain,
    parse_workload,
)

TD = "example.org"
PATH = "/ns/mcp-servers/mcpserver/github"
GOOD = f"spiffe://{TD}{PATH}"
LABEL = "a" * 63

NOT_IDS = [
    # scheme
    "", "s", "spiffe:/", "spiffe://", "spiffe:/example.org" + PATH, f"Spiffe://{TD}{PATH}",
    f"SPIFFE://{TD}{PATH}", f"https://{TD}{PATH}", f" {GOOD}", f"\t{GOOD}", f"\ufeff{GOOD}",
    f"spiffe:{TD}{PATH}", f"spiffe:///{TD}{PATH}", f"//{TD}{PATH}",
    # trust domain
    f"spiffe://{PATH}", f"spiffe://Example.org{PATH}", f"spiffe://{TD}:443{PATH}",
    f"spiffe://user@{TD}{PATH}", f"spiffe://user:pass@{TD}{PATH}", f"spiffe://[::1]{PATH}",
    f"spiffe://example%2eorg{PATH}", f"spiffe://{TD}.{PATH}", f"spiffe://.{TD}{PATH}",
    f"spiffe://other.example{PATH}", f"spiffe://x{TD}{PATH}", f"spiffe://{TD}x{PATH}",
    *(f"spiffe://ex{bad}ample.org{PATH}" for bad in "$~!&'()*+,;=\\ \t\n\0\x7f\"<>[]^`{|}"),
    f"spiffe://example\u3002org{PATH}", f"spiffe://ex\u0430mple.org{PATH}",
    # path
    f"spiffe://{TD}", f"spiffe://{TD}/", f"{GOOD}/", f"spiffe://{TD}/{PATH}",
    f"spiffe://{TD}/ns//mcp-servers/mcpserver/github", f"{GOOD}/more", f"spiffe://{TD}/x{PATH}",
    f"spiffe://{TD}/ns/mcp-servers", f"spiffe://{TD}/ns/mcp-servers/mcpserver",
    f"spiffe://{TD}/ns/mcp-servers/mcpserver/", f"spiffe://{TD}/ns//mcpserver/github",
    f"spiffe://{TD}/ns/mcp-servers/sa/github", f"spiffe://{TD}/NS/mcp-servers/mcpserver/github",
    f"spiffe://{TD}/ns/mcp-servers/MCPServer/github", f"spiffe://{TD}/./ns/a/mcpserver/b",
    f"spiffe://{TD}/ns/./mcpserver/github", f"spiffe://{TD}/ns/../mcpserver/github",
    f"spiffe://{TD}/ns/a/mcpserver/..", f"spiffe://{TD}/ns/a/../a/mcpserver/b",
    f"spiffe://{TD}/ns/A/mcpserver/b", f"spiffe://{TD}/ns/a/mcpserver/B",
    f"spiffe://{TD}/ns/a_b/mcpserver/c", f"spiffe://{TD}/ns/a/mcpserver/b.c",
    f"spiffe://{TD}/ns/-a/mcpserver/b", f"spiffe://{TD}/ns/a-/mcpserver/b",
    f"spiffe://{TD}/ns/a/mcpserver/-b", f"spiffe://{TD}/ns/a/mcpserver/b-",
    f"spiffe://{TD}/ns/{LABEL}a/mcpserver/b", f"spiffe://{TD}/ns/a/mcpserver/{LABEL}b",
    f"spiffe://{TD}/ns/a/mcpserver/%62", f"spiffe://{TD}/ns/a%2Fb/mcpserver/c",
    f"spiffe://{TD}/ns/a/mcpserver/\uff47ithub", f"spiffe://{TD}/ns/a/mcpserver/\u0661",
    f"spiffe://{TD}/ns/a/mcpserver/\u0131", f"spiffe://{TD}/ns/a/mcpserver/b\u200b",
    *(f"{GOOD}{tail}" for tail in ("?", "?q=1", "#", "#f", ";", ":", "@", " ", "\0", "\n", "\r",
                                  "\r\n", "\t", "\x85", "\u2028", ", DNS:x", "\\")),
    # length
    GOOD + "x" * 2048, f"spiffe://{TD}/" + "x" * 3000,
]  # fmt: skip


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
