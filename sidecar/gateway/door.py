"""The gateway's handler: judge the head, have the JWT accepted, forward, and relay the response."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from chassis.clock import Clock
from chassis.http1.client import Client
from chassis.http1.continuation import AnyResponse, Outcome
from chassis.http1.errors import Failure
from chassis.http1.no_response import Disconnected, NoResponse
from chassis.http1.request import Request
from chassis.http1.response import Response, StreamResponse
from chassis.http1.streamed_response import StreamedResponse
from chassis.logs import request_scope
from chassis.request_ids import keep_traceparent
from sidecar.broker import hash_of, key_of
from sidecar.cached_token import CachedToken
from sidecar.errors import INVALID_TOKEN, TEMPORARILY_UNAVAILABLE, ApiError
from sidecar.gateway import errors
from sidecar.gateway.app_calls import AppCalls, is_repeatable, refusal_of
from sidecar.gateway.app_port import AppPortCheck
from sidecar.gateway.app_responses import AppResponses, Relayed
from sidecar.gateway.forwarding import Forwarding
from sidecar.gateway.open_paths import OpenPaths
from sidecar.gateway.own_answers import OwnAnswers
from sidecar.gateway.passing import Accepted, Judged, Passing
from sidecar.gateway.routing import Call, OpenCall, Router
from sidecar.gateway.settings import GatewaySettings
from sidecar.gateway.step_up import StepUps
from sidecar.gateway.streams import Stream, Streams
from sidecar.metrics import Metrics
from sidecar.protected_resource import ProtectedResource
from sidecar.token_source import TokenSource


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
        origins = self._router.origins
        self._answers = OwnAnswers(resource, origins, collaborators.metrics, collaborators.now)
        self._calls = AppCalls(
            settings, self._router, collaborators.app, collaborators.source, now=collaborators.now
        )
        self._responses = AppResponses(origins)
        self._open_paths = OpenPaths(self._calls, self._responses)

    def answer(self, request: Request) -> Outcome:
        """The handler of every request at the gateway's listener."""
        started = self._collaborators.now()
        judged = self._judge(request)
        route = judged.route
        if isinstance(route, Call):
            return self._pass_on(Passing.of(request, judged, started), route)
        if isinstance(route, OpenCall):
            passing = Passing.of(request, judged, started)
            return self._answered(passing, partial(self._pass_on_openly, passing, route))
        if isinstance(route, ApiError):
            return self._answers.refuse(request.headers, route, started)
        return self._answers.answer(request.headers, route, started)

    def failed(self, failure: Failure) -> Response:
        """The answer to bytes that are no request, and after a bug."""
        return self._answers.failed(failure)

    def sweep(self) -> None:
        """Forget what is past its time."""
        self._calls.renewals.sweep()

    def _judge(self, request: Request) -> Judged:
        judged = request.connection.peer
        if isinstance(judged, Judged) and judged.head is request.head:
            return judged
        route, key = self._router.route(request.head), None
        if isinstance(route, Call):
            key = key_of(route.unverified_jwt, self._calls.token_request)
        judged = Judged.of(request.head, route, key)
        request.connection.peer = judged
        reached = request.connection.sockname
        if self._collaborators.app_port is not None and isinstance(reached, tuple):
            self._collaborators.app_port.reached_at(str(reached[0]))
        return judged

    # A call whose token is in memory: nothing is waited for but the app.

    def _pass_on(self, passing: Passing, call: Call) -> Outcome:
        accepted = self._accept_at_once(passing, call)
        if isinstance(accepted, ApiError):
            return self._refuse(passing, accepted)
        if accepted is not None:
            begun = self._begin(passing, accepted)
            if begun is not None:
                return begun
        return self._answered(passing, partial(self._pass_on_slowly, passing, call, accepted))

    def _accept_at_once(self, passing: Passing, call: Call) -> Accepted | ApiError | None:
        """None where the authserver, or the app's port, has to be asked first."""
        app_port = self._collaborators.app_port
        if app_port is not None and (app_port.never_ran or app_port.open):
            return None if app_port.never_ran else errors.APP_PORT_OPEN
        key = passing.judged.key
        token = None if key is None else self._collaborators.source.held(key)
        return None if token is None else self._accept(call, token)

    def _begin(self, passing: Passing, accepted: Accepted) -> Forwarding | Response | None:
        """The request on its way to the app; None where that needs more than writing it."""
        challenge = self._pending(passing, accepted.call)
        if challenge is not None:
            return self._refuse(passing, challenge)
        streams = self._collaborators.streams
        stream = streams.open(accepted.identity, accepted.call.unverified_jwt)
        if isinstance(stream, ApiError):
            return self._refuse(passing, stream)
        forwarding = Forwarding(passing, accepted, stream, self._go_on, streams.close)
        if self._calls.begin(forwarding):
            return forwarding
        streams.close(stream)
        return None

    def _go_on(
        self, forwarding: Forwarding, result: StreamedResponse | Exception | None
    ) -> Outcome:
        """The app has responded, or will not."""
        passing, accepted, stream = forwarding.passing, forwarding.accepted, forwarding.stream
        if isinstance(result, StreamedResponse):
            return self._respond(passing, accepted, stream, result)
        self._collaborators.streams.close(stream)
        if isinstance(result, Disconnected) and is_repeatable(passing.request.method):
            again = partial(self._pass_on_slowly, passing, accepted.call, accepted)
            return self._answered(passing, again)
        if isinstance(result, NoResponse):
            return self._refuse(passing, refusal_of(result))
        if result is not None:
            raise result
        return self._refuse(passing, _refusal_of_ended(stream))

    def _respond(
        self, passing: Passing, accepted: Accepted, stream: Stream, response: StreamedResponse
    ) -> Outcome:
        relayed: Relayed | None = None
        try:
            if not self._has_to_wait(passing, response):
                relayed = self._relayed_at_once(passing, accepted, stream, response)
        except BaseException:
            response.close()
            self._collaborators.streams.close(stream)
            raise
        if relayed is None:
            relaying = partial(self._relay, passing, accepted, stream, response)
            return self._answered(passing, partial(self._within, stream, relaying))
        if not isinstance(relayed, StreamResponse):
            self._collaborators.streams.close(stream)
        if isinstance(relayed, ApiError):
            response.close()
            return self._refuse(passing, relayed)
        self._answers.count("ok", passing.started)
        return relayed

    def _relayed_at_once(
        self, passing: Passing, accepted: Accepted, stream: Stream, response: StreamedResponse
    ) -> Relayed | None:
        refusal = self._pending(passing, accepted.call) or self._responses.bind(
            passing.request, accepted, response
        )
        if refusal is not None:
            return refusal
        return self._responses.at_once(
            passing.request,
            response,
            partial(self._collaborators.streams.close, stream),
            stream,
            accepted,
        )

    def _has_to_wait(self, passing: Passing, response: StreamedResponse) -> bool:
        """Whether something has to be read or asked before the response can go on."""
        return self._calls.refuses_token(response) or self._collaborators.step_ups.has_to_wait(
            passing.request.method, response
        )

    def _pending(self, passing: Passing, call: Call) -> ApiError | None:
        """A challenge that came too late for an earlier call."""
        return self._collaborators.step_ups.pending(passing.request.method, call.unverified_jwt)

    # Everything else has a task.

    async def _answered(
        self, passing: Passing, work: Callable[[], Awaitable[Relayed]]
    ) -> AnyResponse:
        with request_scope(passing.request_id):
            keep_traceparent(passing.judged.head.headers)
            outcome = await work()
            if isinstance(outcome, ApiError):
                return self._refuse(passing, outcome)
            self._answers.count("ok", passing.started)
            return outcome

    def _refuse(self, passing: Passing, refusal: ApiError) -> Response:
        return self._answers.refuse(
            passing.request.headers, refusal, passing.started, passing.request_id
        )

    async def _pass_on_slowly(
        self, passing: Passing, call: Call, accepted: Accepted | None
    ) -> Relayed:
        if accepted is None:
            if await self._app_port_is_open():
                return errors.APP_PORT_OPEN
            obtained = await self._obtain(call)
            if isinstance(obtained, ApiError):
                return obtained
            accepted = obtained
            challenge = self._pending(passing, call)
            if challenge is not None:
                return challenge
        stream = self._collaborators.streams.open(accepted.identity, call.unverified_jwt)
        if isinstance(stream, ApiError):
            return stream
        return await self._within(stream, partial(self._forward, passing, accepted, stream))

    async def _pass_on_openly(self, passing: Passing, route: OpenCall) -> Relayed:
        if await self._app_port_is_open():
            return errors.APP_PORT_OPEN
        return await self._open_paths.relay(passing, route)

    async def _app_port_is_open(self) -> bool:
        check = self._collaborators.app_port
        if check is None:
            return False
        if check.never_ran:
            await check.run()
        return check.open

    async def _obtain(self, call: Call) -> Accepted | ApiError:
        """Have the authserver accept the JWT, unless it did before."""
        source, token_request = self._collaborators.source, self._calls.token_request
        token = source.cached(hash_of(call.unverified_jwt), token_request)
        if token is None:
            obtained = await source.obtain(call.unverified_jwt, token_request)
            if isinstance(obtained, ApiError):
                return errors.at_the_gateway(obtained)
            token = obtained
        return self._accept(call, token)

    def _accept(self, call: Call, token: CachedToken) -> Accepted | ApiError:
        """Whether the token serves here, and the session is this user's and client's."""
        if token.identity is None:
            return TEMPORARILY_UNAVAILABLE.with_reason("identity_not_confirmed")
        if self._settings.puts_token_in and not token.hands_out:
            return errors.ATTACH_ONLY
        accepted = Accepted(call, token, token.identity)
        return accepted if self._responses.are_sessions_of(accepted) else errors.UNKNOWN_SESSION

    async def _within(self, stream: Stream, work: Callable[[], Awaitable[Relayed]]) -> Relayed:
        """Do the work, until the response is on its way or the stream has to end."""
        task = asyncio.current_task()
        assert task is not None
        stream.wake = task.cancel
        outcome: Relayed | None = None
        try:
            outcome = await work()
            return outcome
        except asyncio.CancelledError:
            if not stream.reason:
                raise
            task.uncancel()
            return _refusal_of_ended(stream)
        finally:
            if not isinstance(outcome, StreamResponse):
                self._collaborators.streams.close(stream)

    async def _forward(self, passing: Passing, accepted: Accepted, stream: Stream) -> Relayed:
        response = await self._calls.call(passing, accepted)
        if isinstance(response, ApiError):
            return response
        return await self._relay(passing, accepted, stream, response)

    async def _relay(
        self, passing: Passing, accepted: Accepted, stream: Stream, response: StreamedResponse
    ) -> Relayed:
        try:
            if self._calls.refuses_token(response):
                again = await self._calls.repeat(passing, accepted, response)
                if isinstance(again, ApiError):
                    return again
                response = again
            examined = await self._collaborators.step_ups.examine(
                passing.request.method, accepted.call, accepted.token, response
            )
            if isinstance(examined, ApiError):
                response.close()
                return examined
            relayed: Relayed | None = self._responses.bind(passing.request, accepted, response)
            if relayed is None:
                relayed = self._responses.at_once(
                    passing.request,
                    response,
                    partial(self._collaborators.streams.close, stream),
                    stream,
                    accepted,
                    examined,
                )
            if relayed is None:
                relayed = await self._responses.when_whole(passing.request, response, examined)
            if isinstance(relayed, ApiError):
                response.close()
            return relayed
        except BaseException:
            response.close()
            raise


def _refusal_of_ended(stream: Stream) -> ApiError:
    if stream.reason == "stream_max":
        return errors.APP_TOO_SLOW.with_reason("stream_max")
    return INVALID_TOKEN.with_reason(stream.reason)
