"""Keeping a connection's access token fresh, and presenting each refresh token once.

Within a process, callers of one connection share one flight. Between processes, a flight starts
with a claim in the database that only one can take; the others wait and adopt its result. The
claim is durable before the upstream is called and the result before anyone gets it, so a crash
in between leaves a claim that is never cleared, and the refresh token is not sent again.
A flight goes on when the request that started it is cancelled.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from authserver.errors import InvalidGrant, TemporarilyUnavailable
from authserver.handles import NewHandle
from authserver.legs import Upstreams
from authserver.metrics import Metrics
from authserver.storage.connections import Connections
from authserver.storage.database import StorageDown
from authserver.storage.records import Connection, ConnectionKey, UpstreamTokens
from authserver.upstream.contract import (
    GrantDead,
    OutcomeUnknown,
    Unavailable,
    Upstream,
    UpstreamFailure,
)
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("refreshing")

_T = TypeVar("_T")

FLIGHT_SECONDS: Final = 15
# Longer than any flight with all its attempts to store: a claim this old has nobody behind it.
LEASE_SECONDS: Final = 60
_WAIT_SECONDS: Final = 20
_POLL_SECONDS: Final = 0.1
_STORE_PAUSES: Final = (0.05, 0.2, 0.8, 3.0, 6.0)
_MARGIN_SECONDS: Final = 60
# A token this young is as fresh as its upstream makes them, whatever `min_ttl` asks for.
_YOUNG_SECONDS: Final = 10


def margin(tokens: UpstreamTokens) -> float:
    """How long before its end a token counts as stale: a minute, or a fifth of a short life."""
    if tokens.expires_at is None:
        return 0.0
    return min(_MARGIN_SECONDS, (tokens.expires_at - tokens.obtained_at) / 5)


def lasts(tokens: UpstreamTokens, now: float, seconds: float) -> bool:
    """Whether the token is valid for more than `seconds` from now, as far as is known."""
    return tokens.expires_at is None or tokens.expires_at - now > seconds


class Refreshing:
    def __init__(
        self,
        connections: Connections,
        upstreams: Upstreams,
        metrics: Metrics,
        clock: Clock,
        new_handle: NewHandle,
    ) -> None:
        self._connections, self._upstreams, self._metrics = connections, upstreams, metrics
        self._clock, self._new_handle = clock, new_handle
        self._flights: dict[tuple[ConnectionKey, int], asyncio.Task[Connection]] = {}

    async def usable(self, found: Connection, *, min_ttl: int, rejected: bool) -> Connection:
        """`found`, or its next generation where its token is stale or was `rejected`.

        Raises InvalidGrant where only a new sign-in helps, TemporarilyUnavailable where time may.
        A token that is still valid for `min_ttl` is kept in use through every failure.
        """
        if not rejected and self.fresh(found, min_ttl):
            return found
        keeps = not rejected and lasts(found.tokens, self._clock(), min_ttl)
        if found.dead or found.tokens.refresh_token is None:
            if keeps:
                return found
            raise InvalidGrant("connection_needs_sign_in")
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                return await asyncio.shield(self._flight(found))
        except GrantDead as failure:
            if keeps:
                return found
            raise InvalidGrant(str(failure)) from None
        except (UpstreamFailure, StorageDown, TimeoutError):
            if keeps:
                return found
            raise TemporarilyUnavailable("upstream_refresh_failed") from None

    def fresh(self, found: Connection, min_ttl: int) -> bool:
        """Whether `found` can be used as it is, without asking anybody."""
        now, tokens = self._clock(), found.tokens
        if now - tokens.obtained_at < _YOUNG_SECONDS:
            return lasts(tokens, now, margin(tokens))
        return lasts(tokens, now, max(min_ttl, margin(tokens)))

    def under_way(self, found: Connection) -> bool:
        """Whether this very token is being replaced already."""
        return (found.key, found.generation) in self._flights

    async def settle(self) -> None:
        """Wait for the flights under way; for the end of the process and for tests."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    def _flight(self, found: Connection) -> asyncio.Task[Connection]:
        key = (found.key, found.generation)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._refresh(found))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: tuple[ConnectionKey, int], flight: asyncio.Task[Connection]) -> None:
        del self._flights[key]
        error = None if flight.cancelled() else flight.exception()
        if error is not None and not isinstance(error, UpstreamFailure):
            _log.failure("refresh_broke_off", error)

    async def _refresh(self, found: Connection) -> Connection:
        upstream = self._upstreams.get(found.key.upstream)
        if upstream is None:
            raise Unavailable("upstream_not_configured")
        while True:
            now, claim = int(self._clock()), self._new_handle()
            stale_before = 0 if upstream.rotates_refresh_tokens else now - LEASE_SECONDS
            if await self._connections.claim(found, claim, now, stale_before=stale_before):
                return await self._present(upstream, found, claim)
            latest = await self._latest(found)
            if latest.generation != found.generation:
                return latest
            if latest.dead:
                raise GrantDead("connection_needs_sign_in")
            claimed_at = latest.refresh_claimed_at
            if claimed_at is not None and claimed_at < now - LEASE_SECONDS:
                await self._bury(found, "claim_left_behind")
            await asyncio.sleep(_POLL_SECONDS)

    async def _present(self, upstream: Upstream, found: Connection, claim: str) -> Connection:
        assert found.tokens.refresh_token is not None
        try:
            with self._metrics.refresh_seconds.labels(upstream.name).time():
                async with asyncio.timeout(FLIGHT_SECONDS):
                    tokens = await upstream.refresh(
                        found.tokens.refresh_token, subject=found.upstream_subject
                    )
        except GrantDead as failure:
            self._count(upstream, "dead")
            await self._bury(found, str(failure))
        except Unavailable:
            self._count(upstream, "unavailable")
            await _durably(lambda: self._connections.unclaim(found, claim))
            raise
        except (OutcomeUnknown, TimeoutError):
            self._count(upstream, "unknown")
            if upstream.rotates_refresh_tokens:
                await self._bury(found, "refresh_outcome_unknown")
            await _durably(lambda: self._connections.unclaim(found, claim))
            raise Unavailable("refresh_outcome_unknown") from None
        self._count(upstream, "refreshed")
        stored = await _durably(lambda: self._connections.swap(found, claim, tokens))
        # None: a sign-in or a revocation came first, and what it left is what counts.
        return stored or await self._latest(found)

    async def _latest(self, found: Connection) -> Connection:
        latest = await self._connections.get(found.key)
        if latest is None:
            raise GrantDead("connection_gone")
        return latest

    async def _bury(self, found: Connection, reason: str) -> None:
        """Give the refresh token up for good. Raises GrantDead."""
        await _durably(lambda: self._connections.bury(found))
        _log.warning("connection_dead", upstream=found.key.upstream, reason=reason)
        raise GrantDead(reason)

    def _count(self, upstream: Upstream, result: str) -> None:
        self._metrics.refreshes.labels(upstream.name, result).inc()


async def _durably(write: Callable[[], Awaitable[_T]]) -> _T:
    """Write what an upstream call came to, again and again while storage is down.

    What is not recorded here costs a connection. Raises StorageDown after about ten seconds.
    """
    for pause in _STORE_PAUSES:
        try:
            return await write()
        except StorageDown:
            await asyncio.sleep(pause)
    return await write()
