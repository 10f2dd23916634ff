"""Keeping a connection's access token fresh, and presenting each refresh token once.

Within a process, callers of one connection share one flight. Between processes, a flight starts
with a claim in the database that only one can take; the others wait and adopt its result. The
claim is durable before the upstream is called and the result before anyone gets it, so a crash
in between leaves a claim that is never cleared, and the refresh token is not sent again, except
where its upstream promises a grace for that. A flight goes on when the request that started it
is cancelled. How a claim ends is told in `presenting`.
"""

import asyncio
from typing import Final

from authserver.connections.freshness import lasts, margin, refreshable, renewal_due
from authserver.connections.refresh_claims import ClaimedRefresh
from authserver.oauth.errors import InvalidGrant, TemporarilyUnavailable
from authserver.storage.contract import StorageUnavailable
from authserver.storage.records import Connection, ConnectionKey
from authserver.upstream.contract import GrantRevoked, UpstreamFailure
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("refreshing")

_WAIT_SECONDS: Final = 20
# A token this young is as fresh as its upstream makes them, whatever `min_ttl` asks for.
_YOUNG_SECONDS: Final = 10


class TokenRefresher:
    def __init__(self, claimed_refresh: ClaimedRefresh, clock: Clock) -> None:
        self._claimed_refresh, self._clock = claimed_refresh, clock
        self._flights: dict[tuple[ConnectionKey, int], asyncio.Task[Connection]] = {}

    def usable_now(self, found: Connection, min_ttl: int) -> bool:
        """Whether `found` can be used as it is, without waiting for anybody.

        One that will soon be stale is renewed meanwhile.
        """
        now, tokens = self._clock(), found.tokens
        needs = margin(tokens)
        if now - tokens.obtained_at >= _YOUNG_SECONDS:
            needs = max(min_ttl, needs)
        if not lasts(tokens, now, needs):
            return False
        if renewal_due(found, now):
            self._flight(found)
        return True

    async def refresh(self, found: Connection, *, min_ttl: int, rejected: bool) -> Connection:
        """The next generation of `found`, whose token is not at hand or was `rejected`.

        Raises InvalidGrant where only a new sign-in helps, TemporarilyUnavailable where time may.
        A token that is still valid for `min_ttl` is kept in use through every failure.
        """
        keeps = not rejected and lasts(found.tokens, self._clock(), min_ttl)
        if not refreshable(found):
            if keeps:
                return found
            raise InvalidGrant("connection_needs_sign_in")
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                return await asyncio.shield(self._flight(found))
        except GrantRevoked as failure:
            if keeps:
                return found
            raise InvalidGrant(str(failure)) from None
        except (UpstreamFailure, StorageUnavailable, TimeoutError):
            if keeps:
                return found
            raise TemporarilyUnavailable("upstream_refresh_failed") from None

    def in_flight(self, found: Connection) -> bool:
        """Whether this very token is being replaced already."""
        return (found.key, found.generation) in self._flights

    async def drain(self) -> None:
        """Wait for the flights under way; for the end of the process and for tests."""
        self._claimed_refresh.stop_retrying()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._claimed_refresh.drain()

    def _flight(self, found: Connection) -> asyncio.Task[Connection]:
        key = (found.key, found.generation)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._claimed_refresh.next_generation(found))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._done(key, done))
        return flight

    def _done(self, key: tuple[ConnectionKey, int], flight: asyncio.Task[Connection]) -> None:
        del self._flights[key]
        error = None if flight.cancelled() else flight.exception()
        if error is not None and not isinstance(error, UpstreamFailure):
            _log.failure("refresh_broke_off", error)
