"""What the head of a request alone decides: an answer, an open path, or a call with a JWT. Pure."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from chassis.http1.errors import Malformed
from chassis.http1.outgoing import RequestHead
from chassis.http1.request import Head, Headers
from sidecar.errors import ApiError
from sidecar.gateway import cors
from sidecar.gateway.errors import (
    BAD_REQUEST,
    BODY_NOT_ALLOWED,
    FOREIGN_ORIGIN,
    METHOD_NOT_ALLOWED,
)
from sidecar.gateway.header_rules import (
    CLIENT_TOKEN,
    OPEN,
    Fields,
    Rules,
    request_fields,
    upstream_token,
)
from sidecar.gateway.session_ids import ids_of_request
from sidecar.gateway.settings import GatewaySettings
from sidecar.protected_resource import ProtectedResource
from sidecar.token_request import read_bearer

_READING: Final = ("GET", "HEAD")
_WITHOUT_SESSION: Final = frozenset({"last-event-id"})


class Answer(NamedTuple):
    """What the gateway answers by itself."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class OpenCall(NamedTuple):
    """A request that goes on without a token."""

    head: RequestHead


class Call(NamedTuple):
    """A request that goes on when its JWT is accepted. `fields` are those of the client."""

    unverified_jwt: str
    fields: Fields
    session_ids: tuple[str, ...]

    def __repr__(self) -> str:
        return "<Call>"


Route = Answer | OpenCall | Call | ApiError


class Router:
    """Judges heads for one gateway."""

    def __init__(self, settings: GatewaySettings, resource: ProtectedResource) -> None:
        self._settings, self._resource = settings, resource
        self._paths = frozenset(resource.paths)
        self._document = Answer(200, {"Content-Type": "application/json"}, resource.document)
        self._rules = _rules(settings)
        self._authority = f"127.0.0.1:{settings.target}"
        self.origins = cors.Origins(settings.origins, resource.resource)

    def route(self, head: Head) -> Route:
        """Where a request goes; nothing of it is forwarded yet."""
        try:
            return self._route(head)
        except Malformed as malformed:
            return BAD_REQUEST.with_reason(malformed.reason)

    def request_head(self, head: Head, fields: Fields) -> RequestHead:
        """The request line and the fields as the app gets them."""
        return RequestHead(head.method, head.target, self._authority, fields)

    def _route(self, head: Head) -> Route:
        headers, target = head.headers, head.target
        if self.origins.refuses(headers):
            return FOREIGN_ORIGIN
        if cors.is_preflight(head.method, headers):
            return Answer(204, cors.preflight_fields(headers), b"")
        if target.partition("?")[0] in self._paths:
            return self._document if head.method in _READING else METHOD_NOT_ALLOWED
        if target in self._settings.open_paths and head.method in _READING:
            return self._open(head)
        return self._call(head)

    def _open(self, head: Head) -> Route:
        """Byte for byte: a query, or another spelling, is another path."""
        if head.content_length != 0:
            return BODY_NOT_ALLOWED
        return OpenCall(self.request_head(head, request_fields(head.headers, OPEN)))

    def _call(self, head: Head) -> Route:
        unverified_jwt = read_bearer(head.headers.get_all("authorization"))
        if isinstance(unverified_jwt, ApiError):
            return unverified_jwt
        if not head.target.startswith("/"):
            return BAD_REQUEST.with_reason("target")
        session_ids = ids_of_request(head.headers, head.target)
        return Call(unverified_jwt, self._fields(head.headers, session_ids), session_ids)

    def _fields(self, headers: Headers, session_ids: tuple[str, ...]) -> Fields:
        if session_ids or "last-event-id" not in headers:
            return request_fields(headers, self._rules)
        return request_fields(headers, Rules(self._rules.removed | _WITHOUT_SESSION))


def _rules(settings: GatewaySettings) -> Rules:
    return upstream_token(settings.header) if settings.puts_token_in else CLIENT_TOKEN
