"""Requests to the app: written anew, with the user's name and, where asked for, the token."""

from typing import Final, NamedTuple

from chassis.clock import Clock
from chassis.http1.client import Client
from chassis.http1.no_response import NoResponse, TooSlow, Unreachable
from chassis.http1.outgoing import OutgoingBody, RequestHead
from chassis.http1.request import Request
from chassis.http1.streamed_response import StreamedResponse
from chassis.request_ids import outgoing_headers
from sidecar.cached_token import CachedToken
from sidecar.errors import INVALID_TOKEN, ApiError
from sidecar.gateway import errors
from sidecar.gateway.header_rules import CLIENT, USER, Fields
from sidecar.gateway.relay import SHORT
from sidecar.gateway.routing import Call, Router
from sidecar.gateway.settings import GatewaySettings
from sidecar.identity import Identity
from sidecar.renewals import Renewals
from sidecar.token_request import TokenRequest
from sidecar.token_source import TokenSource

OPEN_PATH_SECONDS: Final = 30.0

_REPEATABLE: Final = ("GET", "HEAD", "OPTIONS")
_WITHOUT_BODY: Final = ("GET", "HEAD", "DELETE", "OPTIONS")

Body = bytes | OutgoingBody | None


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


class AppCalls:
    """Calls the app of one gateway; `now` is monotonic, in seconds."""

    def __init__(
        self,
        settings: GatewaySettings,
        router: Router,
        app: Client,
        source: TokenSource,
        *,
        now: Clock,
    ) -> None:
        self._settings, self._router, self._app = settings, router, app
        self.renewals: Final = Renewals(source.cached, source.obtain, now)
        self.token_request: Final = TokenRequest(settings.upstream)

    async def open(self, head: RequestHead) -> StreamedResponse | ApiError:
        """A request without a token."""
        return await self._request(head.with_lines(_names()), None, OPEN_PATH_SECONDS)

    async def call(
        self, request: Request, accepted: Accepted, prepared: PreparedHead
    ) -> StreamedResponse | ApiError:
        """A request with an accepted JWT. Raises Refused where the client's body is no body."""
        body = request.body if request.body else await self._body(request)
        response = await self._send(request, accepted, body, prepared)
        refused = isinstance(response, StreamedResponse) and response.status == 401
        if not refused or not self._settings.puts_token_in:
            return response
        assert isinstance(response, StreamedResponse)
        response.close()
        return await self._with_renewed_token(request, accepted, body)

    async def _body(self, request: Request) -> Body:
        """The body to send: in memory where a refused token may make it go out again."""
        if request.body is not None:
            return request.body if request.body or request.method not in _WITHOUT_BODY else None
        length = request.head.content_length
        if self._settings.puts_token_in and length is not None and length <= SHORT:
            return await request.read(SHORT)
        return OutgoingBody(request.stream(), length)

    async def _with_renewed_token(
        self, request: Request, accepted: Accepted, body: Body
    ) -> StreamedResponse | ApiError:
        """The app has refused the token: it is renewed once a minute at most (amendment 5)."""
        renewed = await self.renewals.renewed(
            accepted.call.unverified_jwt, accepted.token, self.token_request
        )
        if renewed is None:
            return errors.APP_REFUSES_TOKEN
        if isinstance(renewed, ApiError):
            return errors.at_the_gateway(renewed)
        if isinstance(body, OutgoingBody):
            return INVALID_TOKEN.with_reason("app_refused_token")  # the client sends it again
        renewed_call = accepted._replace(token=renewed)
        response = await self._send(request, renewed_call, body, PreparedHead())
        if isinstance(response, StreamedResponse) and response.status == 401:
            response.close()
            return errors.APP_REFUSES_TOKEN
        return response

    async def _send(
        self, request: Request, accepted: Accepted, body: Body, prepared: PreparedHead
    ) -> StreamedResponse | ApiError:
        if prepared.head is None or prepared.token is not accepted.token:
            fields = [*accepted.call.fields, *self._own_fields(accepted)]
            prepared.head = self._router.request_head(request.head, fields)
            prepared.token = accepted.token
        head = prepared.head.with_lines(_names())
        return await self._request(head, body, float(self._settings.stream_max))

    def _own_fields(self, accepted: Accepted) -> Fields:
        fields = [(USER, accepted.identity.sub), (CLIENT, accepted.identity.client_id)]
        if self._settings.puts_token_in:
            header, token = self._settings.header, accepted.token.access_token
            bearer = header.lower() == "authorization"
            fields.append((header, f"Bearer {token}" if bearer else token))
        return fields

    async def _request(
        self, head: RequestHead, body: Body, seconds: float
    ) -> StreamedResponse | ApiError:
        repeatable = head.method in _REPEATABLE
        try:
            return await self._app.stream(head, body, head_seconds=seconds, repeatable=repeatable)
        except TooSlow:
            return errors.APP_TOO_SLOW
        except Unreachable:
            return errors.APP_UNREACHABLE
        except NoResponse:
            return errors.APP_BAD_RESPONSE


def _names() -> bytes:
    """The fields that name this task's request to the app. Their values were matched whole."""
    lines = [f"{name}: {value}\r\n" for name, value in outgoing_headers().items()]
    return "".join(lines).encode("ascii")
