"""Parses the annotations of the gateway. The sidecar gets their texts as they are, and reads them
by the same rules (`sidecar/gateway/settings.py`; a test holds both together).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from webhook.annotation_reader import BadValue, Reader, choice
from webhook.annotations import (
    GATEWAY,
    GATEWAY_APP_PORT,
    GATEWAY_HEADER,
    GATEWAY_KEYS,
    GATEWAY_OPEN_PATHS,
    GATEWAY_ORIGINS,
    GATEWAY_TOKEN,
    GATEWAY_UPSTREAM,
    PREFIX,
)
from webhook.reasons import quoted

_PORTS: Final = re.compile(r"([1-9][0-9]{0,4}):([1-9][0-9]{0,4})", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?", re.ASCII)
_UPSTREAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+;=:@%/-]{0,255}", re.ASCII)
_ORIGIN: Final = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?",
    re.ASCII,
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_MAX_LISTED: Final = 16
_MAX_LIST: Final = 1024  # characters

# Headers that have another meaning at the gateway, or frame the message.
_NOT_FOR_TOKENS: Final = frozenset(
    {
        "accept", "connection", "content-encoding", "content-length", "content-type", "cookie",
        "expect", "host", "keep-alive", "last-event-id", "mcp-protocol-version", "mcp-session-id",
        "origin", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id",
    }
)  # fmt: skip
_NOT_FOR_TOKENS_PREFIXES: Final = ("proxy-", "x-tokenward", "x-forwarded")


class GatewayOptions(msgspec.Struct, frozen=True):
    """A gateway at `port` of the pod, before the app at `target` of loopback.

    `variables` are the annotations' texts, as environment variables of the sidecar.
    """

    port: int
    target: int
    open_paths: frozenset[str]
    closed_by_policy: bool
    variables: tuple[tuple[str, str], ...]


def read_gateway(reader: Reader) -> GatewayOptions | None:
    """The gateway that the annotations ask for; None where they are refused, or ask for none."""
    read = {key: reader.read(key, parse) for key, parse in _PARSERS.items()}
    present = [key for key in GATEWAY_KEYS if key in reader.annotations]
    if GATEWAY not in reader.annotations:
        reader.refuse(f"{', '.join(present)} needs {GATEWAY}: <port>:<target>")
    if read[GATEWAY_HEADER] is not None and read[GATEWAY_TOKEN] != "upstream":
        reader.refuse(f'{GATEWAY_HEADER} needs {GATEWAY_TOKEN}: "upstream"; else nothing is put in')
    if read[GATEWAY] is None:
        return None
    port, target = read[GATEWAY]
    return GatewayOptions(
        port,
        target,
        frozenset(read[GATEWAY_OPEN_PATHS] or ()),
        read[GATEWAY_APP_PORT] is not None,
        tuple([(variable_of(key), reader.annotations[key]) for key in present]),
    )


def variable_of(key: str) -> str:
    """The sidecar's variable for an annotation: TOKENWARD_GATEWAY_TOKEN for `gateway-token`."""
    return f"TOKENWARD_{key.removeprefix(PREFIX).upper().replace('-', '_')}"


def check_ports(reader: Reader, gateway: GatewayOptions, ours: Mapping[str, int]) -> None:
    """Refuse a gateway at a port of ours, and one that leads to a port of ours."""
    for key, port in ours.items():
        if gateway.port == port:
            reader.refuse(f"{GATEWAY} and {key} must differ, both are {port}")
        if gateway.target == port:
            reader.refuse(
                f"{GATEWAY} leads to {port}, which is the sidecar's own {key}; the target is a "
                "port of the app"
            )


def _ports(text: str) -> tuple[int, int]:
    allowed = "allowed: <port>:<target>, such as 8080:8000; the port from 1024 to 65535"
    match = _PORTS.fullmatch(text)
    if match is None:
        alone = text.isascii() and text.isdigit() and len(text) <= 5
        hint = f"did you mean {text}:<port of the app>? " if alone else ""
        raise BadValue(hint + allowed)
    port, target = int(match[1]), int(match[2])
    if not 1024 <= port <= 65535 or target > 65535:
        raise BadValue(allowed)
    if port == target:
        raise BadValue(f"the gateway cannot lead to itself; {allowed}")
    return port, target


def _header(text: str) -> str:
    name = text.lower()
    if _HEADER.fullmatch(text) is None:
        raise BadValue("allowed: the name of a header: letters, digits and hyphens, at most 64")
    if name in _NOT_FOR_TOKENS or name.startswith(_NOT_FOR_TOKENS_PREFIXES):
        raise BadValue("allowed: a header for tokens, such as Authorization or X-GitHub-Token")
    return text


def _upstream(text: str) -> str:
    if _UPSTREAM.fullmatch(text) is None:
        raise BadValue("allowed: the name of an upstream of the resource")
    return text


def _listed(text: str, each: Callable[[str], str]) -> tuple[str, ...]:
    """Entries separated by commas or spaces."""
    entries = tuple(entry for entry in re.split(r"[ ,]+", text) if entry)
    if not entries or len(entries) > _MAX_LISTED or len(text) > _MAX_LIST:
        raise BadValue(
            f"allowed: 1 to {_MAX_LISTED} entries separated by commas, {_MAX_LIST} characters"
        )
    return tuple(each(entry) for entry in entries)


def _open_path(path: str) -> str:
    if "?" in path or "#" in path:
        raise BadValue(
            f"did you mean {quoted(re.split('[?#]', path)[0])}? a path has neither query nor "
            "fragment, and no request with a query is open"
        )
    if _PATH.fullmatch(path) is None:
        hint = f"did you mean {quoted('/' + path)}? " if not path.startswith("/") else ""
        raise BadValue(f"{hint}allowed: exact paths that begin with /, such as /healthz")
    return path


def _origin(text: str) -> str:
    match = _ORIGIN.fullmatch(text)
    scheme = text.partition(":")[0]
    if match is None or text.endswith(_DEFAULT_PORTS.get(scheme, " ")):
        meant = _meant_origin(text)
        hint = f"did you mean {meant}? " if meant else ""
        raise BadValue(f"{hint}allowed: origins as browsers send them: https://app.example.com")
    return text


def _meant_origin(text: str) -> str | None:
    """The origin of a URL that holds more, in a browser's spelling (RFC 6454 section 6.2)."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    port = "" if port == _DEFAULT_PORTS.get(parts.scheme) else port
    origin = f"{parts.scheme}://{parts.hostname or ''}{port}"
    return origin if _ORIGIN.fullmatch(origin) else None


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    GATEWAY: _ports,
    GATEWAY_TOKEN: choice(("client", "upstream")),
    GATEWAY_HEADER: _header,
    GATEWAY_UPSTREAM: _upstream,
    GATEWAY_OPEN_PATHS: lambda text: _listed(text, _open_path),
    GATEWAY_ORIGINS: lambda text: _listed(text, _origin),
    GATEWAY_APP_PORT: choice(("network-policy",)),
}
