"""The local API: guard, parse, ask the broker, and render whatever comes of it."""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from chassis.clock import Clock
from chassis.http1.continuation import Outcome
from chassis.http1.errors import BodyTooLarge, BodyTooSlow, Failure, Refused
from chassis.http1.request import Head, Request
from chassis.http1.response import Response, ResponseHead
from chassis.logs import Log, request_scope
from chassis.request_ids import (
    caller_request_id,
    keep_traceparent,
    new_request_id,
)
from sidecar.broker import hash_of
from sidecar.cached_token import CachedToken
from sidecar.caller_checks import check_caller, refuse_token_call
from sidecar.errors import (
    ATTACH_ONLY,
    FORBIDDEN_CALLER,
    INVALID_REQUEST,
    NO_SUCH_ROUTE,
    TEMPORARILY_UNAVAILABLE,
    ApiError,
)
from sidecar.metrics import Metrics
from sidecar.protected_resource import ProtectedResource
from sidecar.refusals import JSON_HEADERS, refusal_response
from sidecar.token_request import TokenRequest, read_ask, read_bearer
from sidecar.token_source import TokenSource

if TYPE_CHECKING:
    from sidecar.attach.call import AttachCall
    from sidecar.attach.door import AttachDoor

_log = Log("local_api")

TOKEN_ROUTE: Final = "/v1/token"  # noqa: S105 - a path

ATTACH_ROUTE: Final = "/upstream/"

_OK: Final = ResponseHead(200, JSON_HEADERS.items())


class _Bearer(NamedTuple):
    """The JWT of a call for a token, which nobody has verified, and its hash."""

    unverified_jwt: str
    jwt_hash: bytes

    def __repr__(self) -> str:
        return "<_Bearer>"


class _Attach(NamedTuple):
    """A call of the Attach door, whose module is loaded with the first one."""

    call: "AttachCall"


_Verdict = _Bearer | _Attach | bytes | ApiError


class _Judged(NamedTuple):
    """What a connection's last head came to. A program that asks again sends the same one."""

    head: Head
    verdict: _Verdict

    def __repr__(self) -> str:
        return "<_Judged>"


class LocalApi:
    """Answers the programs of this pod; `now` is a monotonic clock in seconds.

    `open_attach` makes the Attach door, with the first call of it.
    """

    def __init__(
        self,
        tokens: TokenSource,
        resource: ProtectedResource,
        metrics: Metrics,
        *,
        now: Clock,
        open_attach: "Callable[[], AttachDoor]",
    ) -> None:
        self._tokens, self._resource, self._metrics = tokens, resource, metrics
        self._now, self._open_attach = now, open_attach
        self.attach: AttachDoor | None = None  # once it was called

    def answer(self, request: Request) -> Outcome:
        """The handler of every request on the local listener."""
        started = self._now()
        verdict = self._judge(request)
        if isinstance(verdict, bytes):
            return self._succeed(verdict, started)
        if isinstance(verdict, ApiError):
            return self._refuse_call(request, verdict, started)
        if isinstance(verdict, _Attach):
            return self._attach_door().answer(verdict.call, request, started)
        if request.body is None:
            return self._answer_when_sent(request, verdict, started)
        return self._answer_body(request, verdict, request.body, started)

    def failed(self, failure: Failure) -> Response:
        """The answer where there is no other: to bytes that are no request, or after a bug."""
        refusal = INVALID_REQUEST.with_reason("not_http")
        if failure.bug is not None:
            _log.failure("unexpected_failure", failure.bug)
            refusal = TEMPORARILY_UNAVAILABLE.with_reason("unexpected_failure")
        elif failure.status == 503:
            refusal = TEMPORARILY_UNAVAILABLE.with_reason("shutting_down")
        self._metrics.answered(refusal.error, 0.0)
        return self._refuse(refusal, new_request_id())

    def _judge(self, request: Request) -> _Verdict:
        """What the head alone decides: a refusal, the document, or a call for a token."""
        judged = request.connection.peer
        if isinstance(judged, _Judged) and judged.head is request.head:
            return judged.verdict
        verdict = self._judge_anew(request)
        request.connection.peer = _Judged(request.head, verdict)
        return verdict

    def _judge_anew(self, request: Request) -> _Verdict:
        headers, target = request.headers, request.target
        refused = check_caller(headers, target, _hosts(request))
        if refused is not None:
            return refused
        if target.startswith(ATTACH_ROUTE):
            call = self._attach_door().read(request.head)
            return call if isinstance(call, ApiError) else _Attach(call)
        if target != TOKEN_ROUTE:
            return self._elsewhere(request.method, target)
        refused = refuse_token_call(headers, request.method)
        if refused is not None:
            return refused
        unverified_jwt = read_bearer(headers.get_all("authorization"))
        if isinstance(unverified_jwt, ApiError):
            return unverified_jwt
        return _Bearer(unverified_jwt, hash_of(unverified_jwt))

    def _attach_door(self) -> "AttachDoor":
        if self.attach is None:
            self.attach = self._open_attach()
        return self.attach

    def _elsewhere(self, method: str, target: str) -> bytes | ApiError:
        path = target.partition("?")[0]
        if method in ("GET", "HEAD") and path in self._resource.paths:
            return self._resource.document
        return NO_SUCH_ROUTE.with_reason("route")

    async def _answer_when_sent(
        self, request: Request, bearer: _Bearer, started: float
    ) -> Response:
        """The answer to a caller that has not sent all of its body yet."""
        body = await _read_body(request)
        if isinstance(body, ApiError):
            return self._refuse_call(request, body, started)
        response = self._answer_body(request, bearer, body, started)
        return response if isinstance(response, Response) else await response

    def _answer_body(
        self, request: Request, bearer: _Bearer, body: bytes, started: float
    ) -> Response | Awaitable[Response]:
        token_request = read_ask(body)
        if isinstance(token_request, ApiError):
            return self._refuse_call(request, token_request, started)
        cached_token = self._tokens.cached(bearer.jwt_hash, token_request)
        if cached_token is None:
            return self._answer_slowly(request, bearer.unverified_jwt, token_request, started)
        if not cached_token.hands_out:
            return self._refuse_call(request, ATTACH_ONLY, started)
        return self._succeed(cached_token.body(started), started)

    async def _answer_slowly(
        self, request: Request, unverified_jwt: str, token_request: TokenRequest, started: float
    ) -> Response:
        """Ask the authserver: memory has no token for this call."""
        # One id names the request here, in the answer, and in the authserver's log.
        request_id = caller_request_id(request.headers) or new_request_id()
        keep_traceparent(request.headers)
        with request_scope(request_id):
            outcome = await self._tokens.obtain(unverified_jwt, token_request)
            if isinstance(outcome, CachedToken) and not outcome.hands_out:
                outcome = ATTACH_ONLY
            if isinstance(outcome, CachedToken):
                return self._succeed(outcome.body(self._now()), started)
            self._metrics.answered(outcome.error, self._now() - started)
            return self._refuse(outcome, request_id)

    def _succeed(self, body: bytes, started: float) -> Response:
        self._metrics.answered("ok", self._now() - started)
        return Response(_OK, body)

    def _refuse_call(self, request: Request, refusal: ApiError, started: float) -> Response:
        """The answer to a call that was refused before anybody was asked."""
        request_id = caller_request_id(request.headers) or new_request_id()
        door = "attach" if request.target.startswith(ATTACH_ROUTE) else "hand_out"
        self._metrics.answered(refusal.error, self._now() - started, door)
        return self._refuse(refusal, request_id)

    def _refuse(self, refusal: ApiError, request_id: str) -> Response:
        say = _log.warning if refusal.error == FORBIDDEN_CALLER.error else _log.info
        say("refused", error=refusal.error, reason=refusal.reason, request_id=request_id)
        return refusal_response(refusal, request_id, self._resource)


async def _read_body(request: Request) -> bytes | ApiError:
    try:
        return await request.read()
    except BodyTooLarge:
        return INVALID_REQUEST.with_reason("body_too_long", "The body must be at most 16 KiB long.")
    except BodyTooSlow:
        return INVALID_REQUEST.with_reason("body_too_slow", "The body took too long to arrive.")
    except Refused:
        return INVALID_REQUEST.with_reason("body_broken_off", "The body broke off.")


def _hosts(request: Request) -> frozenset[str]:
    """The names of the address this caller reached; of nothing if it has gone already."""
    bound = request.connection.sockname
    return _hosts_of(bound[1]) if isinstance(bound, tuple) else frozenset()


@lru_cache(maxsize=1)
def _hosts_of(port: int) -> frozenset[str]:
    return frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
