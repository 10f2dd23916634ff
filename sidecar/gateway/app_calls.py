"""Requests to the app: written anew, with the user's name and, where asked for, the token."""

from typing import Final

from chassis.clock import Clock
from chassis.http1.client import Client
from chassis.http1.no_response import NoResponse, TooSlow, Unreachable
from chassis.http1.outgoing import OutgoingBody, RequestHead
from chassis.http1.request import Request
from chassis.http1.streamed_response import StreamedResponse
from sidecar.errors import INVALID_TOKEN, ApiError
from sidecar.gateway import errors
from sidecar.gateway.forwarding import Forwarding
from sidecar.gateway.header_rules import CLIENT, USER, Fields
from sidecar.gateway.passing import Accepted, Passing, PreparedHead
from sidecar.gateway.relay import SHORT
from sidecar.gateway.routing import Router
from sidecar.gateway.settings import GatewaySettings
from sidecar.renewals import Renewals
from sidecar.token_request import TokenRequest
from sidecar.token_source import TokenSource

OPEN_PATH_SECONDS: Final = 30.0

_REPEATABLE: Final = ("GET", "HEAD", "OPTIONS")
_WITHOUT_BODY: Final = ("GET", "HEAD", "DELETE", "OPTIONS")

Body = bytes | OutgoingBody | None


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

    async def open(self, passing: Passing, head: RequestHead) -> StreamedResponse | ApiError:
        """A request without a token."""
        return await self._request(head.with_lines(passing.naming_lines), None, OPEN_PATH_SECONDS)

    def begin(self, forwarding: Forwarding) -> bool:
        """Send the request at once, or do nothing and return False: something is not there yet.

        Otherwise `forwarding` is resumed later, with the app's response or a NoResponse.
        """
        passing = forwarding.passing
        if passing.request.body is None:
            return False
        head = self._head(passing, forwarding.accepted, passing.judged.prepared)
        seconds = float(self._settings.stream_max)
        app = self._app.begin(head, _arrived(passing.request), forwarding.resume, seconds)
        if app is not None:
            forwarding.begun(app)
        return app is not None

    async def call(self, passing: Passing, accepted: Accepted) -> StreamedResponse | ApiError:
        """A request with an accepted JWT. Raises Refused where the client's body is no body."""
        request = passing.request
        body = request.body if request.body else await self._body(request)
        response = await self._send(passing, accepted, body, passing.judged.prepared)
        if isinstance(response, StreamedResponse) and self.refuses_token(response):
            return await self._with_renewed_token(passing, accepted, body, response)
        return response

    async def repeat(
        self, passing: Passing, accepted: Accepted, response: StreamedResponse
    ) -> StreamedResponse | ApiError:
        """What becomes of a request that `begin` sent and whose token the app refuses."""
        body = _arrived(passing.request)
        return await self._with_renewed_token(passing, accepted, body, response)

    def refuses_token(self, response: StreamedResponse) -> bool:
        """Whether the app refuses a token that we put in."""
        return response.status == 401 and self._settings.puts_token_in

    async def _body(self, request: Request) -> Body:
        """The body to send: in memory where a refused token may make it go out again."""
        if request.body is not None:
            return _arrived(request)
        length = request.head.content_length
        if self._settings.puts_token_in and length is not None and length <= SHORT:
            return await request.read(SHORT)
        return OutgoingBody(request.stream(), length)

    async def _with_renewed_token(
        self, passing: Passing, accepted: Accepted, body: Body, refusal: StreamedResponse
    ) -> StreamedResponse | ApiError:
        """The app has refused the token: it is renewed once a minute at most (amendment 5)."""
        refusal.close()
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
        response = await self._send(passing, renewed_call, body, PreparedHead())
        if isinstance(response, StreamedResponse) and response.status == 401:
            response.close()
            return errors.APP_REFUSES_TOKEN
        return response

    async def _send(
        self, passing: Passing, accepted: Accepted, body: Body, prepared: PreparedHead
    ) -> StreamedResponse | ApiError:
        head = self._head(passing, accepted, prepared)
        return await self._request(head, body, float(self._settings.stream_max))

    def _head(self, passing: Passing, accepted: Accepted, prepared: PreparedHead) -> RequestHead:
        if prepared.head is None or prepared.token is not accepted.token:
            fields = [*accepted.call.fields, *self._own_fields(accepted)]
            prepared.head = self._router.request_head(passing.judged.head, fields)
            prepared.token = accepted.token
        return prepared.head.with_lines(passing.naming_lines)

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
        try:
            return await self._app.stream(
                head, body, head_seconds=seconds, repeatable=is_repeatable(head.method)
            )
        except NoResponse as failure:
            return refusal_of(failure)


def _arrived(request: Request) -> bytes | None:
    """A body that is in memory; None: no body and no framing."""
    return request.body if request.body or request.method not in _WITHOUT_BODY else None


def is_repeatable(method: str) -> bool:
    """Whether it may be sent again where a kept connection turned out to be closed."""
    return method in _REPEATABLE


def refusal_of(failure: NoResponse) -> ApiError:
    """What the client gets from an app that gave no response."""
    if isinstance(failure, TooSlow):
        return errors.APP_TOO_SLOW
    if isinstance(failure, Unreachable):
        return errors.APP_UNREACHABLE
    return errors.APP_BAD_RESPONSE
