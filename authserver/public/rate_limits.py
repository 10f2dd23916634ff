"""The public listener's rates, by source, and where it matters by client at a source.

A client id alone is never throttled: everybody's copy of one application may share it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from aiohttp import web

from authserver.clients.authentication import claimed_client_id
from authserver.config.settings import Limits
from authserver.oauth.errors import InvalidClient, ProtocolError, RateLimited, UserFacingError
from authserver.public.client_ip import Sources
from authserver.rate_limit import RateLimit
from chassis.clock import Clock

_T = TypeVar("_T")

_TOO_OFTEN = "Too many sign-ins were started from your network. Wait a minute and connect again."


class Throttling:
    def __init__(self, sources: Sources, limits: Limits, clock: Clock) -> None:
        self._sources, self._clock = sources, clock
        factor = sources.factor
        self._sign_ins = RateLimit("sign_ins", limits.sign_ins_per_source_per_minute * factor, 60)
        self._requests = RateLimit(
            "token_requests", limits.token_requests_per_client_and_source_per_minute * factor, 60
        )
        self._failures = RateLimit(
            "failed_authentications",
            limits.failed_authentications_per_source_per_minute * factor,
            60,
        )

    def source(self, request: web.BaseRequest) -> str:
        return self._sources.of(request)

    def sign_in(self, request: web.BaseRequest) -> str:
        """Count a request for a page; its source. Raises UserFacingError."""
        source = self._sources.of(request)
        try:
            self._sign_ins.take(source, self._clock())
        except RateLimited as limited:
            raise UserFacingError(limited.reason, _TOO_OFTEN, status=429) from None
        return source

    async def as_client(
        self,
        request: web.BaseRequest,
        fields: Mapping[str, str],
        answer: Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[_T]],
    ) -> _T:
        """What `answer` gives a client; its requests and its failed proofs are counted.

        Where all callers have one source, only what fails counts: a stranger who uses a limit up
        gets 429 in place of an error, and good requests of others go on.
        """
        now = self._clock()
        key = f"{self._sources.of(request)} {claimed_client_id(fields, request.headers)}"
        if not self._sources.shared:
            self._failures.check(key, now)
            self._requests.take(key, now)
        try:
            return await answer(fields, request.headers)
        except InvalidClient:
            self._failures.take(key, now)
            raise
        except ProtocolError:
            if self._sources.shared:
                self._requests.take(key, now)
            raise
