"""The local API: guard, parse, ask the broker, and render whatever comes of it."""

import asyncio
from functools import lru_cache
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from multidict import CIMultiDict

from chassis.clock import Clock
from chassis.logs import Log, request_scope
from chassis.request_ids import HEADER, caller_request_id, keep_traceparent, new_request_id
from sidecar.broker import Broker
from sidecar.cached_token import CachedToken
from sidecar.caller_checks import check_caller, refuse_token_call
from sidecar.clocks import Clocks
from sidecar.errors import (
    FORBIDDEN_CALLER,
    INVALID_REQUEST,
    INVALID_TOKEN,
    NO_SUCH_ROUTE,
    NO_TOKEN,
    TEMPORARILY_UNAVAILABLE,
    ApiError,
)
from sidecar.metrics import Metrics
from sidecar.prebuilt_response import HEADERS, ReadyResponses
from sidecar.protected_resource import ProtectedResource
from sidecar.token_request import MAX_BODY_BYTES, TokenRequest, has_jwt_shape, read_ask, read_bearer
from sidecar.unverified_jwt import ExpectedClaims

_log = Log("local_api")

TOKEN_ROUTE: Final = "/v1/token"  # noqa: S105 - a path


class _Call(NamedTuple):
    """A well-formed call that memory did not answer."""

    unverified_jwt: str
    token_request: TokenRequest


class LocalApi:
    """Answers the programs of this pod; `now` is a monotonic clock in seconds."""

    def __init__(
        self,
        broker: Broker,
        resource: ProtectedResource,
        metrics: Metrics,
        clocks: Clocks,
        *,
        now: Clock,
        wall: Clock,
        body_seconds: float,
    ) -> None:
        self._expected = ExpectedClaims(resource.issuer, resource.resource)
        self._clocks = clocks
        self._broker, self._resource, self._metrics = broker, resource, metrics
        self._now, self._body_seconds = now, body_seconds
        self._responses = ReadyResponses(wall)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The handler of every request on the local listener."""
        started = self._now()
        lookup = await self._look(request)
        if isinstance(lookup, CachedToken):
            self._metrics.cache("hit")
            result, response = "ok", self._responses.make(request, lookup.body(started))
        else:
            result, response = await self._answer_slowly(request, lookup)
        self._metrics.answered(result, self._now() - started)
        return response

    def failed(self, bug: BaseException | None) -> web.Response:
        """The answer where there is no other: to bytes that are no request, or after a bug."""
        refusal = INVALID_REQUEST.with_reason("not_http")
        if bug is not None:
            _log.failure("unexpected_failure", bug)
            refusal = TEMPORARILY_UNAVAILABLE.with_reason("unexpected_failure")
        self._metrics.answered(refusal.error, 0.0)
        return self._refuse(refusal, new_request_id())

    async def _look(self, request: web.BaseRequest) -> CachedToken | bytes | _Call | ApiError:
        """Everything that needs no other process; the path of a token in memory."""
        headers, target = request.headers, request.raw_path
        refused = check_caller(headers, target, self._hosts(request))
        if refused is not None:
            return refused
        if target != TOKEN_ROUTE:
            return self._elsewhere(request.method, target)
        refused = refuse_token_call(headers, request.method)
        if refused is not None:
            return refused
        unverified_jwt = read_bearer(headers.getall(hdrs.AUTHORIZATION, ()))
        if isinstance(unverified_jwt, ApiError):
            return unverified_jwt
        content = request.content
        body = content.read_nowait() if content.is_eof() else await self._read_body(request)
        token_request = read_ask(body) if isinstance(body, bytes) else body
        if isinstance(token_request, ApiError):
            return token_request
        return self._broker.cached(unverified_jwt, token_request) or _Call(
            unverified_jwt, token_request
        )

    def _hosts(self, request: web.BaseRequest) -> frozenset[str]:
        """The names of the address this caller reached; of nothing if it has gone already."""
        bound = request.protocol.sockname
        return _hosts_of(bound[1]) if isinstance(bound, tuple) else frozenset()

    def _elsewhere(self, method: str, target: str) -> bytes | ApiError:
        path = target.partition("?")[0]
        if method in ("GET", "HEAD") and path in self._resource.paths:
            return self._resource.document
        return NO_SUCH_ROUTE.with_reason("route")

    async def _read_body(self, request: web.BaseRequest) -> bytes | ApiError:
        """The body of a caller that has not sent all of it yet."""
        body = bytearray()
        try:
            if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            async with asyncio.timeout(self._body_seconds):
                while len(body) <= MAX_BODY_BYTES and (chunk := await request.content.readany()):
                    body += chunk
        except TimeoutError:
            return INVALID_REQUEST.with_reason("body_too_slow", "The body took too long to arrive.")
        except (OSError, web.RequestPayloadError):
            return INVALID_REQUEST.with_reason("body_broken_off", "The body broke off.")
        return bytes(body)

    async def _answer_slowly(
        self, request: web.BaseRequest, lookup: bytes | _Call | ApiError
    ) -> tuple[str, web.StreamResponse]:
        if isinstance(lookup, bytes):
            return "ok", self._responses.make(request, lookup)
        # One id names the request here, in the answer, and in the authserver's log.
        request_id = caller_request_id(request.headers) or new_request_id()
        keep_traceparent(request.headers)
        with request_scope(request_id):
            outcome = await self._obtain(lookup) if isinstance(lookup, _Call) else lookup
            if isinstance(outcome, CachedToken):
                return "ok", self._responses.make(request, outcome.body(self._now()))
            return outcome.error, self._refuse(outcome, request_id)

    async def _obtain(self, call: _Call) -> CachedToken | ApiError:
        # Only here: what memory knows by its hash was accepted before, so it had the shape.
        if not has_jwt_shape(call.unverified_jwt):
            return INVALID_TOKEN.with_reason("not_a_jwt")
        problem = self._expected.problem_of(call.unverified_jwt, self._clocks.times())
        if problem is not None:
            return INVALID_TOKEN.with_reason(problem)
        return await self._broker.obtain(call.unverified_jwt, call.token_request)

    def _refuse(self, refusal: ApiError, request_id: str) -> web.Response:
        say = _log.warning if refusal.error == FORBIDDEN_CALLER.error else _log.info
        say("refused", error=refusal.error, reason=refusal.reason, request_id=request_id)
        headers = CIMultiDict(HEADERS, **refusal.headers)
        headers[HEADER] = request_id
        if refusal.status == 401:
            error = None if refusal == NO_TOKEN else "invalid_token"
            headers["WWW-Authenticate"] = self._resource.challenge(error, refusal.description)
        return web.Response(status=refusal.status, body=refusal.body(request_id), headers=headers)


@lru_cache(maxsize=1)
def _hosts_of(port: int) -> frozenset[str]:
    return frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
