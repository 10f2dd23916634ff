"""The Attach door: take a call, put the token in, send it, and pass the answer on."""

from typing import Final

from chassis.clock import Clock
from chassis.http1.client import Client
from chassis.http1.client_connection import StreamedResponse
from chassis.http1.connection import AnyResponse
from chassis.http1.errors import Refused
from chassis.http1.no_response import (
    BadResponse,
    Disconnected,
    NoResponse,
    ProxyRefused,
    TooSlow,
    Unreachable,
    Untrusted,
)
from chassis.http1.outgoing import OutgoingBody
from chassis.http1.request import Head, Request
from chassis.logs import Log, request_scope
from chassis.request_ids import caller_request_id, keep_traceparent, naming_fields, new_request_id
from chassis.tls.web_client import NoAuthorities
from sidecar.attach.api_clients import ApiClients
from sidecar.attach.call import AttachCall, PreparedCall, prepare, read_call
from sidecar.attach.outgoing_body import Body, outgoing_body
from sidecar.attach.relay import Relay
from sidecar.attach.token_search import TokenFound
from sidecar.cached_token import CachedToken
from sidecar.errors import (
    BAD_GATEWAY,
    GATEWAY_TIMEOUT,
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

# RFC 9110 section 9.2.2: what may be sent again where a kept connection turned out to be closed.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})

# Whether the API has acted is known only where nothing was sent.
_FAILURES: Final[dict[type[NoResponse], ApiError]] = {
    ProxyRefused: BAD_GATEWAY.with_reason("proxy_refused"),
    Unreachable: BAD_GATEWAY.with_reason("api_unreachable"),
    Untrusted: BAD_GATEWAY.with_reason("api_untrusted"),
    Disconnected: BAD_GATEWAY.with_reason("api_disconnected"),
    BadResponse: BAD_GATEWAY.with_reason("api_bad_response"),
    TooSlow: GATEWAY_TIMEOUT.with_reason("api_too_slow"),
}


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
        self._relay = Relay(timeouts.api_piece, self._cut_off)

    @staticmethod
    def read(head: Head) -> AttachCall | ApiError:
        """The call that a head makes; it may be kept as long as the head is repeated."""
        return read_call(head)

    async def answer(self, call: AttachCall, request: Request, started: float) -> AnyResponse:
        """The API's answer, or ours where there is none to pass on."""
        named = naming_fields(request.headers)
        request_id = caller_request_id(named) or new_request_id()
        keep_traceparent(named)
        with request_scope(request_id):
            outcome = await self._outcome(call, request)
            result = outcome.error if isinstance(outcome, ApiError) else "ok"
            self._metrics.answered(result, self._now() - started, DOOR)
            if not isinstance(outcome, ApiError):
                return outcome
            _log.info("refused", error=outcome.error, reason=outcome.reason, upstream=call.upstream)
            return refusal_response(outcome, request_id, self._resource)

    def sweep(self) -> None:
        """Forget what is past its time."""
        self._renewals.sweep()

    def close(self) -> None:
        self._clients.close()

    async def _outcome(self, call: AttachCall, request: Request) -> AnyResponse | ApiError:
        token = await self._token(call)
        if isinstance(token, ApiError):
            return token
        prepared = self._prepared(call, token)
        if isinstance(prepared, ApiError):
            return prepared
        body = await outgoing_body(request, call, prepared.api)
        if isinstance(body, ApiError):
            return body
        try:
            return await self._send(call, prepared, body)
        except TokenFound:
            self._report_token(prepared, "refused")
            return TOKEN_IN_RESPONSE.with_reason("token_in_response")
        except Refused:
            return INVALID_REQUEST.with_reason("body_broken_off", "The body broke off.")
        except NoResponse as failure:
            return _FAILURES[type(failure)]
        except NoAuthorities:
            return BAD_GATEWAY.with_reason("no_authorities")

    async def _token(self, call: AttachCall) -> CachedToken | ApiError:
        wanted = TokenRequest(call.upstream)
        cached = self._tokens.cached(call.unverified_jwt, wanted)
        return cached or await self._tokens.obtain(call.unverified_jwt, wanted)

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
        """Send the call, and once more with another token where the first was refused."""
        answer = await self._call_api(prepared, body)
        if answer.status == 401:
            renewed = await self._renewed(call, prepared, answer, repeats=_may_repeat(body))
            if isinstance(renewed, ApiError):
                return renewed
            if renewed is not None:
                prepared, answer = renewed, await self._call_api(renewed, body)
        try:
            response = await self._relay.response(prepared, answer, call.head.method)
        except BaseException:
            answer.close()
            raise
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
        self, call: AttachCall, refused: PreparedCall, answer: StreamedResponse, *, repeats: bool
    ) -> PreparedCall | ApiError | None:
        """The call with another token; None where the API's answer is to be passed on."""
        _log.info("api_refused_token", upstream=call.upstream, api=refused.api.name)
        if not repeats:
            self._renewals.begin(call.unverified_jwt, refused.token)
            return None
        outcome = await self._renewals.renewed(call.unverified_jwt, refused.token)
        if not isinstance(outcome, CachedToken):
            # That the connection is dead is for the user; that we could not ask is not.
            verdict = outcome is not None and outcome.status == 401
            if verdict:
                answer.close()
            return outcome if verdict else None
        again = self._prepared(call, outcome)
        answer.close()
        return again

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


def _may_repeat(body: Body) -> bool:
    return not isinstance(body, OutgoingBody)
