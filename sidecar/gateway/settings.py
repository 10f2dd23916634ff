"""The gateway's settings: the texts of the pod's annotations, read by the webhook's rules.

A sidecar outside Kubernetes gets them from whoever starts it, so they are checked here too.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol, TypeVar

_PORTS: Final = re.compile(r"(0|[1-9][0-9]{0,4}):([1-9][0-9]{0,4})", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?", re.ASCII)
_UPSTREAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+;=:@%/-]{0,255}", re.ASCII)
_ORIGIN: Final = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?",
    re.ASCII,
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_MAX_LISTED: Final = 16
_MAX_LIST: Final = 1024

# Headers that have another meaning at the gateway, or frame the message.
_NOT_FOR_TOKENS: Final = frozenset(
    {
        "accept", "connection", "content-encoding", "content-length", "content-type", "cookie",
        "expect", "host", "keep-alive", "last-event-id", "mcp-protocol-version", "mcp-session-id",
        "origin", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id",
    }
)  # fmt: skip
_NOT_FOR_TOKENS_PREFIXES: Final = ("proxy-", "x-tokenward", "x-forwarded")

STREAM_MAX: Final = 3600
_LEAST_STREAM_MAX: Final = 60
_MOST_STREAM_MAX: Final = 86_400

T = TypeVar("T")


class Variables(Protocol):
    """The TOKENWARD_ variables; faults are collected."""

    @property
    def in_kubernetes(self) -> bool: ...
    def optional(self, name: str, parse: Callable[[str], T], default: T) -> T: ...
    def fault(self, name: str, problem: str) -> None: ...


@dataclass(frozen=True)
class GatewaySettings:
    """One gateway. `header` gets the upstream's token where `puts_token_in`.

    `checks_app_port` is False where a NetworkPolicy closes the app's port to others, and outside
    Kubernetes, where our address may be anybody's.
    """

    host: str
    port: int
    target: int
    puts_token_in: bool
    header: str
    upstream: str | None
    open_paths: frozenset[str]
    origins: frozenset[str]
    checks_app_port: bool
    stream_max: int


def read_gateway(variables: Variables) -> GatewaySettings:
    """Read TOKENWARD_GATEWAY and what belongs to it; faults go to `variables`."""
    port, target = variables.optional("GATEWAY", _ports, (0, 1))
    token = variables.optional("GATEWAY_TOKEN", _one_of("client", "upstream"), "client")
    header = variables.optional("GATEWAY_HEADER", _header, "")
    if header and token != "upstream":  # noqa: S105 - a mode
        variables.fault("GATEWAY_HEADER", "needs TOKENWARD_GATEWAY_TOKEN=upstream")
    policy = variables.optional("GATEWAY_APP_PORT", _one_of("network-policy"), "")
    return GatewaySettings(
        host=variables.optional("GATEWAY_HOST", _host, "::"),
        port=port,
        target=target,
        puts_token_in=token == "upstream",  # noqa: S105 - a mode
        header=header or "Authorization",
        upstream=variables.optional("GATEWAY_UPSTREAM", _upstream, None),
        open_paths=variables.optional("GATEWAY_OPEN_PATHS", _listed(_open_path), frozenset()),
        origins=variables.optional("GATEWAY_ORIGINS", _listed(_origin), frozenset()),
        checks_app_port=variables.in_kubernetes and not policy,
        stream_max=variables.optional("GATEWAY_STREAM_MAX", _stream_max, STREAM_MAX),
    )


def _ports(text: str) -> tuple[int, int]:
    match = _PORTS.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2])) > 65_535:
        raise ValueError("must be <port>:<target>, such as 8080:8000")
    if match[1] == match[2]:
        raise ValueError("must not lead to itself")
    return int(match[1]), int(match[2])


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}")
        return text

    return parse


def _header(text: str) -> str:
    name = text.lower()
    if _HEADER.fullmatch(text) is None or name in _NOT_FOR_TOKENS:
        raise ValueError("must be the name of a header for tokens")
    if name.startswith(_NOT_FOR_TOKENS_PREFIXES):
        raise ValueError("must be the name of a header for tokens")
    return text


def _upstream(text: str) -> str | None:
    if _UPSTREAM.fullmatch(text) is None:
        raise ValueError("must be the name of an upstream")
    return text


def _host(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError("must be an IP address") from None
    return text


def _listed(matches: Callable[[str], bool]) -> Callable[[str], frozenset[str]]:
    def parse(text: str) -> frozenset[str]:
        entries = [entry for entry in re.split("[ ,]+", text) if entry]
        if not 1 <= len(entries) <= _MAX_LISTED or len(text) > _MAX_LIST:
            raise ValueError(f"must be 1 to {_MAX_LISTED} entries separated by commas")
        if not all(map(matches, entries)):
            raise ValueError("has an entry that is not of its form")
        return frozenset(entries)

    return parse


def _open_path(text: str) -> bool:
    return _PATH.fullmatch(text) is not None


def _origin(text: str) -> bool:
    if _ORIGIN.fullmatch(text) is None:
        return False
    return not text.endswith(_DEFAULT_PORTS[text.partition(":")[0]])


def _stream_max(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise ValueError("must be a whole number of seconds")
    if not _LEAST_STREAM_MAX <= int(text) <= _MOST_STREAM_MAX:
        raise ValueError(f"must be from {_LEAST_STREAM_MAX} to {_MOST_STREAM_MAX} seconds")
    return int(text)
