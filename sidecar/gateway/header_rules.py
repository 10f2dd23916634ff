"""Which header fields go on, and in which direction.

Fields are compared by what a server may make of their names: in lower case, and with a hyphen for
each character that is no letter or digit. WSGI and CGI programs see `X_Tokenward_User` and
`X-Tokenward-User` as one variable.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from chassis.http1.errors import Malformed
from chassis.http1.request import Headers
from sidecar.gateway.session_ids import HEADER as SESSION_ID

USER: Final = "X-Tokenward-User"
CLIENT: Final = "X-Tokenward-Client"

_OURS: Final = "x-tokenward"
_CORS: Final = "access-control-"
_OTHER: Final = re.compile(r"[^a-z0-9-]", re.ASCII)

# RFC 9110 section 7.6.1: they concern one connection.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip

# Written anew, or answered here. An app that checks `Origin` itself knows its own address only.
_WRITTEN_ANEW: Final = frozenset(
    {"content-length", "date", "expect", "host", "origin", "server", "traceparent", "x-request-id"}
)

# What may not be meant under a second spelling, and what `Connection` may not take away.
_FIXED: Final = frozenset(
    {
        "authorization", "content-encoding", "content-type", "cookie", "last-event-id",
        "mcp-protocol-version", SESSION_ID, "x-http-method", "x-http-method-override",
        "x-method-override", *_HOP_BY_HOP, *_WRITTEN_ANEW,
    }
)  # fmt: skip
_OPTIONS: Final = frozenset({"close", "keep-alive", "upgrade", "te", "http2-settings", ""})

# What an open path never gets: it names nobody, and changes nothing.
_NOT_WHERE_OPEN: Final = frozenset(
    {
        "authorization", "cookie", "last-event-id", SESSION_ID, "x-http-method",
        "x-http-method-override", "x-method-override",
    }
)  # fmt: skip

Fields = list[tuple[str, str]]


class Rules(NamedTuple):
    """What is removed beside the usual: the names are in lower case."""

    removed: frozenset[str] = frozenset()


CLIENT_TOKEN: Final = Rules()
OPEN: Final = Rules(_NOT_WHERE_OPEN)


def upstream_token(header: str) -> Rules:
    """The rules where the upstream's token goes into `header`: only ours may be there."""
    return Rules(frozenset({"authorization", header.lower()}))


def request_fields(headers: Headers, rules: Rules) -> Fields:
    """The fields of a request that go on to the app. Raises Malformed.

    `Connection` may not name a field that the app must see: some readers would drop it.
    """
    named = _named_by_connection(headers)
    if not named.isdisjoint(_FIXED - _HOP_BY_HOP) or any(one.startswith(_OURS) for one in named):
        raise Malformed("connection_option")
    return list(_kept(headers.items(), lambda name: name in named or _removed(name, rules)))


def response_fields(headers: Headers) -> Fields:
    """The fields of the app's response that go on to the client, without those of CORS."""
    named = _named_by_connection(headers)
    return list(
        _kept(
            headers.items(),
            lambda name: (
                name in named or name.startswith(_CORS) or name in ("date", "server")
                or name in _HOP_BY_HOP or name == "content-length"
                or comparable(name).startswith(_OURS)
            ),
        )
    )  # fmt: skip


@lru_cache(maxsize=256)
def comparable(name: str) -> str:
    """The name as a server may see it: `x_a.b` is `x-a-b`. `name` is in lower case."""
    return _OTHER.sub("-", name)


def _removed(name: str, rules: Rules) -> bool:
    same = comparable(name)
    if same in _HOP_BY_HOP or same in _WRITTEN_ANEW or same in rules.removed:
        return True
    return same.startswith(_OURS) or (same != name and same in _FIXED)


def _kept(
    fields: Iterable[tuple[str, str]], removed: Callable[[str], bool]
) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in fields if not removed(name))


def _named_by_connection(headers: Headers) -> frozenset[str]:
    """The fields that concern this connection alone, beside the usual options."""
    options = headers.get("connection")
    if options is None:
        return frozenset()
    return frozenset(one.strip(" \t").lower() for one in options.split(",")) - _OPTIONS
