"""The gateway's handler: judge the head, have the JWT accepted, forward, and relay the response."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from chassis.clock import Clock
from chassis.http1.client import Client
from chassis.http1.connection import AnyResponse
from chassis.http1.errors import Failure
from chassis.http1.no_response import NoResponse
from chassis.http1.request import Head, Request
from chassis.http1.response import Response, StreamResponse
from chassis.http1.streamed_response import StreamedResponse
from chassis.logs import request_scope
from chassis.request_ids import (
    caller_request_id,
    keep_traceparent,
    naming_fields,
    new_request_id,
)
from sidecar.errors import INVALID_TOKEN, TEMPORARILY_UNAVAILABLE, ApiError
from sidecar.gateway import errors
from sidecar.gateway.app_calls import Accepted, AppCalls, PreparedHead
from sidecar.gateway.app_port import AppPortCheck
from sidecar.gateway.own_answers import OwnAnswers
from sidecar.gateway.relay import SHORT, Relay, is_event_stream, is_short
from sidecar.gateway.response_heads import ResponseHeads
from sidecar.gateway.routing import Call, OpenCall, Route, Router
from sidecar.gateway.session_bindings import Holder, SessionBindings
from sidecar.gateway.session_ids import HEADER as SESSION_ID
from sidecar.gateway.session_ids import is_session_id
from sidecar.gateway.settings import GatewaySettings
from sidecar.gateway.step_up import UNREAD, Examined, StepUps
from sidecar.gateway.streams import Stream, Streams
from sidecar.metrics import Metrics
from sidecar.protected_resource import ProtectedResource
from sidecar.token_source import TokenSource

MAX_OPEN_CALLS: Final = 64

Outcome = AnyResponse | ApiError


class _Judged(NamedTuple):
    """What a connection's last head came to. A program that asks again sends the same one.

    `named` are the fields by which the client names its requests, `request_id` what they say.
    """

    head: Head
    route: Route
    prepared: PreparedHead
    named: Mapping[str, str]
    request_id: str

    def __repr__(self) -> str:
        return "<_Judged>"


@dataclass(frozen=True)
class Collaborators:
    """What one gateway works with; without `app_port` nobody looks at the app's own port."""

    source: TokenSource
    app: Client
    streams: Streams
    step_ups: StepUps
    app_port: AppPortCheck | None
    metrics: Metrics
    now: Clock


class Gateway:
    """Answers the clients of the MCP server."""

    def __init__(
        self, settings: GatewaySettings, resource: ProtectedResource, collaborators: Collaborators
    ) -> None:
        self._settings, self._collaborators = settings, collaborators
        self._router = Router(settings, resource)
        self._answers = OwnAnswers(
            resource, self._router.origins, collaborators.metrics, collaborators.now
        )
        self._calls = AppCalls(
            settings, self._router, collaborators.app, collaborators.source, now=collaborators.now
        )
        self._bindings = SessionBindings()
        self._open_calls = 0
        self._heads = ResponseHeads(self._router.origins)

    def answer(self, request: Request) -> AnyResponse | Awaitable[AnyResponse]:
        """The handler of every request at the gateway's listener."""
        started = self._collaborators.now()
        judged = self._judge(request)
        route = judged.route
        if isinstance(route, Call | OpenCall):
            return self._pass_on(request, judged, route, started)
        if isinstance(route, ApiError):
            return self._answers.refuse(request.headers, route, started)
        return self._answers.answer(request.headers, route, started)

    def failed(self, failure: Failure) -> Response:
        """The answer to bytes that are no request, and after a bug."""
        return self._answers.failed(failure)

    def sweep(self) -> None:
        """Forget what is past its time."""
        self._calls.renewals.sweep()

    def _judge(self, request: Request) -> _Judged:
        judged = request.connection.peer
        if isinstance(judged, _Judged) and judged.head is request.head:
            return judged
        named = naming_fields(request.headers)
        route = self._router.route(request.head)
        judged = _Judged(request.head, route, PreparedHead(), named, caller_request_id(named))
        request.connection.peer = judged
        return judged

    async def _pass_on(
        self, request: Request, judged: _Judged, route: Call | OpenCall, started: float
    ) -> AnyResponse:
        # One id names the request here, at the app, in an answer, and in the authserver's log.
        request_id = judged.request_id or new_request_id()
        with request_scope(request_id):
            keep_traceparent(judged.named)
            outcome = await self._outcome(request, judged, route)
            if isinstance(outcome, ApiError):
                return self._answers.refuse(request.headers, outcome, started, request_id)
            self._answers.count("ok", started)
            return outcome

    async def _outcome(self, request: Request, judged: _Judged, route: Call | OpenCall) -> Outcome:
        if self._collaborators.app_port is not None and await self._app_port_is_open(request):
            return errors.APP_PORT_OPEN
        if isinstance(route, OpenCall):
            return await self._open(request, route)
        accepted = await self._accept(route)
        if isinstance(accepted, ApiError):
            return accepted
        challenge = self._collaborators.step_ups.pending(request.method, route.unverified_jwt)
        if challenge is not None:
            return challenge
        stream = self._collaborators.streams.open(accepted.identity, route.unverified_jwt)
        if isinstance(stream, ApiError):
            return stream
        return await self._within(stream, request, accepted, judged.prepared)

    async def _app_port_is_open(self, request: Request) -> bool:
        check = self._collaborators.app_port
        assert check is not None
        reached = request.connection.sockname
        if isinstance(reached, tuple):
            check.reached_at(str(reached[0]))
        if check.never_ran:
            await check.run()
        return check.open

    async def _accept(self, call: Call) -> Accepted | ApiError:
        """Whether the authserver accepts the JWT, and the session is this user's and client's."""
        source, token_request = self._collaborators.source, self._calls.token_request
        token = source.cached(call.unverified_jwt, token_request)
        if token is None:
            obtained = await source.obtain(call.unverified_jwt, token_request)
            if isinstance(obtained, ApiError):
                return errors.at_the_gateway(obtained)
            token = obtained
        if token.identity is None:
            return TEMPORARILY_UNAVAILABLE.with_reason("identity_not_confirmed")
        if self._settings.puts_token_in and not token.hands_out:
            return errors.ATTACH_ONLY
        accepted = Accepted(call, token, token.identity)
        holder = _holder(accepted)
        if not all(self._bindings.belongs_to(one, holder) for one in call.session_ids):
            return errors.UNKNOWN_SESSION
        return accepted

    async def _within(
        self, stream: Stream, request: Request, accepted: Accepted, prepared: PreparedHead
    ) -> Outcome:
        """Forward, until the response is on its way or the stream has to end."""
        task = asyncio.current_task()
        assert task is not None
        stream.wake = task.cancel
        outcome: Outcome | None = None
        try:
            outcome = await self._forward(stream, request, accepted, prepared)
            return outcome
        except asyncio.CancelledError:
            if not stream.reason:
                raise
            task.uncancel()
            if stream.reason == "stream_max":
                return errors.APP_TOO_SLOW.with_reason("stream_max")
            return INVALID_TOKEN.with_reason(stream.reason)
        finally:
            if not isinstance(outcome, StreamResponse):
                self._collaborators.streams.close(stream)

    async def _forward(
        self, stream: Stream, request: Request, accepted: Accepted, prepared: PreparedHead
    ) -> Outcome:
        response = await self._calls.call(request, accepted, prepared)
        if isinstance(response, ApiError):
            return response
        try:
            examined = await self._examined(request, accepted, response)
            if isinstance(examined, ApiError):
                response.close()
                return examined
            bind = self._binder(accepted) if _names_a_session_later(request, response) else None
            return await self._relayed(request, response, stream, bind, examined)
        except BaseException:
            response.close()
            raise

    async def _examined(
        self, request: Request, accepted: Accepted, response: StreamedResponse
    ) -> Examined | ApiError:
        """What the app's response says of scopes and sessions."""
        examined = await self._collaborators.step_ups.examine(
            request.method, accepted.call, accepted.token, response
        )
        if isinstance(examined, ApiError):
            return examined
        return self._bind(request, accepted, response) or examined

    def _bind(
        self, request: Request, accepted: Accepted, response: StreamedResponse
    ) -> ApiError | None:
        """Note whose session it is that the app has given, or ended."""
        given = response.headers.get_all(SESSION_ID)
        if given and not (len(given) == 1 and is_session_id(given[0])):
            return errors.APP_BAD_RESPONSE.with_reason("session_id")
        if given and not self._bindings.bind(given[0], _holder(accepted)):
            return errors.SESSION_CONFLICT
        if request.method == "DELETE" and 200 <= response.status < 300:
            for session_id in accepted.call.session_ids:
                self._bindings.unbind(session_id)
        return None

    def _binder(self, accepted: Accepted) -> Callable[[str], bool]:
        return lambda session_id: self._bindings.bind(session_id, _holder(accepted))

    async def _relayed(
        self,
        request: Request,
        response: StreamedResponse,
        stream: Stream | None,
        bind: Callable[[str], bool] | None,
        examined: Examined = UNREAD,
    ) -> Outcome:
        """The response for the client: whole where it is short, so that it never breaks off."""
        head = self._heads.of(request.headers, response, keeps_challenge=examined.keeps_challenge)
        begun = examined.begun
        if bind is None and request.method != "HEAD" and is_short(response):
            try:
                whole = response.whole
                rest = response.arrived() if whole else await response.read(SHORT)
                return Response(head, begun + rest)
            except NoResponse:
                return errors.APP_BAD_RESPONSE.with_reason("app_response_broken_off")
        done = self._open_call_is_over
        if stream is not None:
            done = lambda: self._collaborators.streams.close(stream)  # noqa: E731
        relay = Relay(response, stream, bind, done, begun)
        return StreamResponse(head, relay, length=response.length)

    async def _open(self, request: Request, route: OpenCall) -> Outcome:
        """A request without a token, to a path that is open."""
        if self._open_calls >= MAX_OPEN_CALLS:
            return errors.SERVER_FULL.with_reason("open_calls")
        self._open_calls += 1
        outcome: Outcome | None = None
        try:
            response = await self._calls.open(route.head)
            if isinstance(response, ApiError):
                return response
            outcome = await self._relayed(request, response, None, None)
            return outcome
        finally:
            if not isinstance(outcome, StreamResponse):
                self._open_call_is_over()

    def _open_call_is_over(self) -> None:
        self._open_calls -= 1


def _holder(accepted: Accepted) -> Holder:
    return Holder(accepted.identity.sub, accepted.identity.client_id)


def _names_a_session_later(request: Request, response: StreamedResponse) -> bool:
    """Whether the older transport may name a session in the first event of this response."""
    return request.method == "GET" and is_event_stream(response)
