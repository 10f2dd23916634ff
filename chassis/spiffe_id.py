"""SPIFFE IDs of workloads (SPIFFE-ID section 2, narrowed to the product's own form).

The raw string taken from a certificate is matched whole; it is never rebuilt from a URL
parser, because parsers fold case, drop tabs and forgive trailing newlines.
"""

import re
from typing import NamedTuple

MAX_LENGTH = 2048

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_WORKLOAD_ID = re.compile(
    rf"spiffe://(?P<trust_domain>[a-z0-9._-]{{1,255}})"
    rf"/ns/(?P<namespace>{_LABEL})/mcpserver/(?P<name>{_LABEL})",
    re.ASCII,
)
_DNS_LABEL = re.compile(_LABEL, re.ASCII)


class InvalidSpiffeId(ValueError):
    """The string is not the SPIFFE ID of a workload of this trust domain."""


class Workload(NamedTuple):
    """An MCP server as an identity."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def spiffe_id(self, trust_domain: str) -> str:
        return f"spiffe://{trust_domain}/ns/{self.namespace}/mcpserver/{self.name}"


def is_trust_domain(text: str) -> bool:
    """Whether `text` may stand in configuration as a trust domain: no scheme, port or capitals."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


def is_dns_label(text: str) -> bool:
    """Whether `text` is a DNS-1123 label, as the names of namespaces and workloads are."""
    return _DNS_LABEL.fullmatch(text) is not None


def parse_workload(spiffe_id: str, *, trust_domain: str) -> Workload:
    """Read `spiffe://<trust domain>/ns/<namespace>/mcpserver/<name>`.

    Raises InvalidSpiffeId for any other string and for any other trust domain; its text names
    the reason for logs and never repeats the input.
    """
    if len(spiffe_id) > MAX_LENGTH:
        raise InvalidSpiffeId("longer than 2048 bytes")
    match = _WORKLOAD_ID.fullmatch(spiffe_id)
    if match is None:
        raise InvalidSpiffeId("not of the form spiffe://TD/ns/NAMESPACE/mcpserver/NAME")
    if match["trust_domain"] != trust_domain:
        raise InvalidSpiffeId("another trust domain")
    return Workload(match["namespace"], match["name"])
