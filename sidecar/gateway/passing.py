"""What is known of a request on its way to the app, one step after the other."""

from typing import Final, NamedTuple

from chassis.http1.outgoing import RequestHead
from chassis.http1.request import Head, Request
from chassis.request_ids import (
    HEADER,
    caller_request_id,
    new_request_id,
    traceparent_line,
)
from sidecar.broker import Key
from sidecar.cached_token import CachedToken
from sidecar.gateway.routing import Call, Route
from sidecar.identity import Identity

_ID: Final = HEADER.encode("ascii")


class Accepted(NamedTuple):
    """A call whose JWT the authserver accepted, and the token that came with it."""

    call: Call
    token: CachedToken
    identity: Identity

    def __repr__(self) -> str:
        return "<Accepted>"


class PreparedHead:
    """The head that one connection's requests have at the app, as long as its token is the same."""

    __slots__ = ("head", "token")

    def __init__(self) -> None:
        self.token: CachedToken | None = None
        self.head: RequestHead | None = None

    def __repr__(self) -> str:
        return "<PreparedHead>"


class Judged(NamedTuple):
    """What a connection's last head came to. A program that asks again sends the same one.

    `request_id` and `traceparent` are how the client names its requests. `key` is where memory has
    the token of a call.
    """

    head: Head
    route: Route
    prepared: PreparedHead
    request_id: str
    traceparent: bytes
    key: Key | None

    @classmethod
    def of(cls, head: Head, route: Route, key: Key | None) -> "Judged":
        request_id, traceparent = caller_request_id(head.headers), traceparent_line(head.headers)
        return cls(head, route, PreparedHead(), request_id, traceparent, key)

    def __repr__(self) -> str:
        return "<Judged>"


class Passing(NamedTuple):
    """A request that is passed on. One id names it here, at the app, and in an answer."""

    request: Request
    judged: Judged
    request_id: str
    started: float

    @classmethod
    def of(cls, request: Request, judged: Judged, started: float) -> "Passing":
        return cls(request, judged, judged.request_id or new_request_id(), started)

    @property
    def naming_lines(self) -> bytes:
        """The fields that name the request to the app; their values were matched whole."""
        return b"%b: %b\r\n%b" % (_ID, self.request_id.encode("ascii"), self.judged.traceparent)
