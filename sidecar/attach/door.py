"""The Attach door: take a call, put the token in, send it, and pass the answer on."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from chassis.clock import Clock
from chassis.http1.client import Client
from chassis.http1.continuation import AnyResponse, Outcome
from chassis.http1.errors import Refused
from chassis.http1.no_response import Disconnected, NoResponse
from chassis.http1.outgoing import OutgoingBody
from chassis.http1.request import Head, Request
from chassis.http1.response import Response, StreamResponse
from chassis.http1.streamed_response import StreamedResponse
from chassis.logs import Log, request_scope
from chassis.request_ids import caller_request_id, keep_traceparent, new_request_id
from chassis.tls.web_client import NoAuthorities
from sidecar.attach.api_clients import ApiClients
from sidecar.attach.call import AttachCall, PreparedCall, prepare, read_call
from sidecar.attach.failures import refusal_of
from sidecar.attach.outgoing_body import Body, body_in_memory, is_in_memory, outgoing_body
from sidecar.attach.relay import Begun, Relay
from sidecar.attach.sent_call import SentCall
from sidecar.attach.step_up import StepUp
from sidecar.attach.token_search import TokenFound
from sidecar.cached_token import CachedToken
from sidecar.errors import (
    BAD_GATEWAY,
    INVALID_REQUEST,
    TOKEN_IN_RESPONSE,
    ApiError,
)
from sidecar.metrics import Metrics
from sidecar.protected_resource import ProtectedResource
from sidecar.refusals import refusal_response
from sidecar.renewals import Renewals
from sidecar.timeouts import Timeouts
from sidecar.token_request import TokenRequest
from sidecar.token_source import TokenSource

_log = Log("attach")

DOOR: Final = "attach"

Work = Callable[[], Awaitable[AnyResponse | ApiError]]

# RFC 9110 section 9.2.2: what may be sent again where a kept connection turned out to be closed.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


class AttachDoor:
    """Answers the calls of `/upstream/`; `now` is a monotonic clock in seconds."""

    def __init__(
        self,
        tokens: TokenSource,
        clients: ApiClients,
        resource: ProtectedResource,
        metrics: Metrics,
        *,
        now: Clock,
        timeouts: Timeouts,
    ) -> None:
        self._tokens, self._clients = tokens, clients
        self._resource, self._metrics = resource, metrics
        self._now, self._timeouts = now, timeouts
        self._renewals = Renewals(tokens.cached, tokens.obtain, now)
        self._step_up = StepUp(tokens.obtain)
        self._relay = Relay(timeouts.api_piece, self._cut_off)

    @staticmethod
    def read(head: Head) -> AttachCall | ApiError:
        """The call that a head makes; it may be kept as long as the head is repeated."""
        return read_call(head)

    def answer(self, call: AttachCall, request: Request, started: float) -> Outcome:
        """The API's answer, or ours where there is none to pass on."""
        token = self._tokens.held(call.key)
        if token is None:
            return self._answer_slowly(call, request, started)
        sent = self._send_at_once(call, request, token, started)
        if sent is not None:
            return sent
        return self._answer(call, request, started, partial(self._outcome, call, request, token))

    # A call whose token is in memory, at an API with an idle connection.

    def _send_at_once(
        self, call: AttachCall, request: Request, token: CachedToken, started: float
    ) -> SentCall | AnyResponse | None:
        """The call on its way to the API; None where that takes more than writing it."""
        prepared = self._prepared(call, token)
        if isinstance(prepared, ApiError):
            return self._answered(call, request, started, prepared)
        if not is_in_memory(request, call):
            return None
        client = self._clients.ready(prepared.api)
        if client is None:
            return None
        body = body_in_memory(request)
        sent = SentCall(request, call, prepared, body, started, self._go_on)
        sent.api = client.begin(prepared.request, body, sent.resume, self._timeouts.api_head)
        return None if sent.api is None else sent

    def _go_on(self, sent: SentCall, result: StreamedResponse | Exception) -> Outcome:
        """The API has answered, or will not."""
        call, prepared, body = sent.call, sent.prepared, sent.body
        if isinstance(result, StreamedResponse):
            outcome = self._relayed_at_once(call, prepared, result)
            if outcome is not None:
                return self._answered(call, sent.request, sent.started, outcome)
            work = partial(self._pass_on, call, prepared, body, result)
        elif isinstance(result, Disconnected) and call.head.method in _IDEMPOTENT:
            work = partial(self._send, call, prepared, body)
        elif isinstance(result, NoResponse):
            refusal = refusal_of(result)
            return self._answered(call, sent.request, sent.started, refusal)
        else:
            raise result
        return self._answer(call, sent.request, sent.started, partial(self._judged, prepared, work))

    def _relayed_at_once(
        self, call: AttachCall, prepared: PreparedCall, answer: StreamedResponse
    ) -> AnyResponse | ApiError | None:
        """None where another token may have to be asked for, or more of the answer to arrive."""
        if answer.status == 401 or self._step_up.concerns(prepared, answer.status):
            return None
        try:
            outcome = self._relay.at_once(prepared, answer, call.head.method)
        except TokenFound:
            answer.close()
            return self._token_found(prepared)
        except BaseException:
            answer.close()
            raise
        if isinstance(outcome, ApiError):
            answer.close()
        _log.debug("attached", upstream=call.upstream, api=prepared.api.name, status=answer.status)
        return outcome

    def _answered(
        self, call: AttachCall, request: Request, started: float, outcome: AnyResponse | ApiError
    ) -> AnyResponse:
        if isinstance(outcome, ApiError):
            return self._refuse(call, request_id_of(request), outcome, started)
        self._metrics.answered("ok", self._now() - started, DOOR)
        return outcome

    # Everything else has a task.

    async def _answer(
        self, call: AttachCall, request: Request, started: float, work: Work
    ) -> AnyResponse:
        return self._answered(call, request, started, await work())

    async def _answer_slowly(
        self, call: AttachCall, request: Request, started: float
    ) -> AnyResponse:
        """Ask the authserver first: memory has no token for this call."""
        request_id = request_id_of(request)
        keep_traceparent(request.headers)
        with request_scope(request_id):
            wanted = TokenRequest(call.upstream)
            token = await self._tokens.obtain(call.unverified_jwt, wanted)
            outcome: AnyResponse | ApiError = (
                token if isinstance(token, ApiError) else await self._outcome(call, request, token)
            )
            if isinstance(outcome, ApiError):
                return self._refuse(call, request_id, outcome, started)
            return self._answered(call, request, started, outcome)

    def _refuse(
        self, call: AttachCall, request_id: str, refusal: ApiError, started: float
    ) -> Response:
        self._metrics.answered(refusal.error, self._now() - started, DOOR)
        _log.info(
            "refused",
            error=refusal.error,
            reason=refusal.reason,
            upstream=call.upstream,
            request_id=request_id,
        )
        return refusal_response(refusal, request_id, self._resource)

    def sweep(self) -> None:
        """Forget what is past its time."""
        self._renewals.sweep()

    def close(self) -> None:
        self._clients.close()

    async def _outcome(
        self, call: AttachCall, request: Request, token: CachedToken
    ) -> AnyResponse | ApiError:
        prepared = self._prepared(call, token)
        if isinstance(prepared, ApiError):
            return prepared
        body = await outgoing_body(request, call, prepared.api)
        if isinstance(body, ApiError):
            return body
        return await self._judged(prepared, partial(self._send, call, prepared, body))

    async def _judged(self, prepared: PreparedCall, work: Work) -> AnyResponse | ApiError:
        """What the work comes to; refusals where it fails."""
        try:
            return await work()
        except TokenFound:
            return self._token_found(prepared)
        except Refused:
            return INVALID_REQUEST.with_reason("body_broken_off", "The body broke off.")
        except NoResponse as failure:
            return refusal_of(failure)
        except NoAuthorities:
            return BAD_GATEWAY.with_reason("no_authorities")

    def _token_found(self, prepared: PreparedCall) -> ApiError:
        self._report_token(prepared, "refused")
        return TOKEN_IN_RESPONSE.with_reason("token_in_response")

    @staticmethod
    def _prepared(call: AttachCall, token: CachedToken) -> PreparedCall | ApiError:
        if call.prepared is not None and call.prepared.token is token:
            return call.prepared
        prepared = prepare(call, token)
        call.prepared = None if isinstance(prepared, ApiError) else prepared
        return prepared

    async def _send(
        self, call: AttachCall, prepared: PreparedCall, body: Body
    ) -> AnyResponse | ApiError:
        answer = await self._call_api(prepared, body)
        return await self._pass_on(call, prepared, body, answer)

    async def _pass_on(
        self, call: AttachCall, prepared: PreparedCall, body: Body, answer: StreamedResponse
    ) -> AnyResponse | ApiError:
        """Pass the answer on; send the call once more where its token was refused."""
        response: AnyResponse | ApiError | None = None
        try:
            if answer.status == 401:
                renewed = await self._renewed(call, prepared, repeats=_may_repeat(body))
                if isinstance(renewed, ApiError):
                    return renewed
                if renewed is not None:
                    answer.close()
                    prepared, answer = renewed, await self._call_api(renewed, body)
            begun: Begun | None = None
            if self._step_up.concerns(prepared, answer.status):
                begun = await self._read_ahead(call, prepared, answer)
                wider = await self._with_scope(call, prepared, answer, begun)
                if isinstance(wider, ApiError):
                    return wider
                if wider is not None and _may_repeat(body):
                    answer.close()
                    prepared, begun = wider, None
                    answer = await self._call_api(wider, body)
            response = await self._relay.response(prepared, answer, call.head.method, begun)
        finally:
            if not isinstance(response, StreamResponse):
                answer.close()
        _log.debug("attached", upstream=call.upstream, api=prepared.api.name, status=answer.status)
        return response

    async def _call_api(self, prepared: PreparedCall, body: Body) -> StreamedResponse:
        client: Client = self._clients.ready(prepared.api) or await self._clients.prepare(
            prepared.api
        )
        return await client.stream(
            prepared.request,
            body,
            head_seconds=self._timeouts.api_head,
            repeatable=prepared.request.method in _IDEMPOTENT
            and not isinstance(body, OutgoingBody),
        )

    async def _renewed(
        self, call: AttachCall, refused: PreparedCall, *, repeats: bool
    ) -> PreparedCall | ApiError | None:
        """The call with another token; None where the API's answer is to be passed on."""
        _log.info("api_refused_token", upstream=call.upstream, api=refused.api.name)
        if not repeats:
            self._renewals.begin(call.unverified_jwt, refused.token)
            return None
        outcome = await self._renewals.renewed(call.unverified_jwt, refused.token)
        if isinstance(outcome, CachedToken):
            return self._prepared(call, outcome)
        # That the connection is dead is for the user; that we could not ask is not.
        return outcome if outcome is not None and outcome.status == 401 else None

    async def _read_ahead(
        self, call: AttachCall, prepared: PreparedCall, answer: StreamedResponse
    ) -> Begun | None:
        """The body, where it may say which scope is missing."""
        if not self._step_up.reads_body(prepared, answer, call.head.method):
            return None
        return await self._relay.begin(answer)

    async def _with_scope(
        self,
        call: AttachCall,
        prepared: PreparedCall,
        answer: StreamedResponse,
        begun: Begun | None,
    ) -> PreparedCall | ApiError | None:
        """The call with a token that has what the API wants; None: pass its answer on."""
        body = begun.data if begun is not None and begun.ended else None
        outcome = await self._step_up.outcome(call, prepared, answer, body)
        return self._prepared(call, outcome) if isinstance(outcome, CachedToken) else outcome

    def _cut_off(self, prepared: PreparedCall) -> None:
        """An answer under way held the token."""
        self._report_token(prepared, "cut_off")

    def _report_token(self, prepared: PreparedCall, answer: str) -> None:
        """The API shows the token to whoever calls it: it should not be used on."""
        _log.warning(
            "token_in_response",
            upstream=prepared.token.upstream,
            api=prepared.api.name,
            answer=answer,
        )
        self._metrics.token_in_response(answer)
        self._renewals.begin(prepared.unverified_jwt, prepared.token)


def request_id_of(request: Request) -> str:
    """The name that the caller gave its request, or a new one."""
    return caller_request_id(request.headers) or new_request_id()


def _may_repeat(body: Body) -> bool:
    return not isinstance(body, OutgoingBody)
