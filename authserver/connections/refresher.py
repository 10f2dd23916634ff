"""Keeping a connection's access token fresh, with one flight per connection in this process.

Within a process, callers of one connection share one flight. Between processes, a flight starts
with a claim in the database that only one can take; the others wait and adopt its result. The
claim is durable before the upstream is called and the result before anyone gets it. A flight goes
on when the request that started it is cancelled. How a claim ends is told in `refresh_claims`.
"""

import asyncio
from typing import Final

from authserver.connections.freshness import (
    lasts,
    margin,
    refreshable,
    renewal_due,
    uncertain_since,
)
from authserver.connections.refresh_claims import ClaimedRefresh
from authserver.connections.registration_binding import RegistrationBinding
from authserver.connections.timeouts import RefreshTimeouts
from authserver.oauth.errors import InvalidGrant, TemporarilyUnavailable
from authserver.rate_limit import RateLimit
from authserver.storage.claim_rows import MAX_REFUSALS, REFUSED_SECONDS, ClaimRows
from authserver.storage.contract import StorageUnavailable
from authserver.storage.records import Connection, ConnectionKey
from authserver.upstream.contract import GrantRevoked, Unavailable, UpstreamFailure
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("refresher")

# A token this young is as fresh as its upstream makes them, whatever `min_ttl` asks for.
_YOUNG_SECONDS: Final = 10
# A report of rejection may cause one refresh, and one question to the upstream, in this time.
_REJECTION_SECONDS: Final = 60
# A fate may stay unknown for so long while other refreshes succeed, and so long in any case.
_UNKNOWN_SECONDS: Final = 600
_MAX_UNKNOWN_SECONDS: Final = 24 * 3600
# What is left of a token when it is released; `expires_in` is never 0 (RFC 6749 section 5.1).
_LEAST_LIFE_SECONDS: Final = 1


class TokenRefresher:
    def __init__(
        self,
        claimed_refresh: ClaimedRefresh,
        claims: ClaimRows,
        binding: RegistrationBinding,
        clock: Clock,
        timeouts: RefreshTimeouts,
    ) -> None:
        self._claimed_refresh, self._claims, self._binding = claimed_refresh, claims, binding
        self._clock, self._timeouts = clock, timeouts
        self._rejections = RateLimit("rejected_tokens", 1, _REJECTION_SECONDS)
        self._questions = RateLimit("rejected_tokens", 1, _REJECTION_SECONDS)
        self._flights: dict[tuple[ConnectionKey, int], asyncio.Task[Connection]] = {}

    def usable_now(self, connection: Connection, min_ttl: int) -> bool:
        """Whether its token can be released as it is, without waiting. Raises as `usable` does."""
        if self._binding.upstream_of(connection) is None:
            return False
        self._check(connection)
        return self._at_hand(connection, min_ttl)

    async def usable(self, connection: Connection, *, min_ttl: int, rejected: bool) -> Connection:
        """The connection, or its next generation, with an access token to release.

        `rejected`: an API turned its access token down. Raises InvalidGrant where only a new
        sign-in helps, TemporarilyUnavailable where time may, RateLimited for too many reports.
        """
        await self._binding.check(connection)
        self._check(connection)
        if rejected:
            return await self._replace_rejected(connection, min_ttl)
        return await self._refresh(connection, min_ttl=min_ttl, rejected=False)

    def _check(self, connection: Connection) -> None:
        """Whether the connection can give a token at all. Raises as `usable` does."""
        if connection.rejected:
            raise InvalidGrant("connection_rejected")
        now = self._clock()
        if not refreshable(connection) and not lasts(connection.tokens, now, _LEAST_LIFE_SECONDS):
            raise InvalidGrant("connection_needs_sign_in")
        if not lasts(connection.tokens, now, _LEAST_LIFE_SECONDS) and self._given_up(connection):
            # Tried all the same when a token is wanted: a later yes revives the connection.
            self._start(connection, rejected=False)
            raise InvalidGrant("refresh_token_does_not_work")

    def _at_hand(self, connection: Connection, min_ttl: int) -> bool:
        """Whether it can be used as it is, without waiting for anybody.

        One that will soon be stale is renewed meanwhile.
        """
        now, tokens = self._clock(), connection.tokens
        needs = max(margin(tokens), _LEAST_LIFE_SECONDS)
        if now - tokens.obtained_at >= _YOUNG_SECONDS:
            needs = max(min_ttl, needs)
        if not lasts(tokens, now, needs):
            return False
        if renewal_due(connection, now) and self._may_renew_ahead(connection):
            self._start(connection, rejected=False)
        return True

    def _may_renew_ahead(self, connection: Connection) -> bool:
        """Not while the upstream is in trouble: a token that serves is not put at risk."""
        return not self._claimed_refresh.health.doubtful(connection.key.upstream)

    async def _replace_rejected(self, connection: Connection, min_ttl: int) -> Connection:
        """A report of rejection is a hint: APIs say 401 for reasons of their own too.

        It causes one refresh a minute. Where that cannot be, or the token was just made, the
        upstream itself is asked, and only its 401 counts.
        """
        if self._in_flight(connection):
            return await self._refresh(connection, min_ttl=min_ttl, rejected=True)
        if connection.dead:
            # The upstream has ended the grant and the API refuses the token: both agree.
            await self._claims.mark_rejected(connection, int(self._clock()))
            raise InvalidGrant("connection_rejected")
        age = self._clock() - connection.tokens.obtained_at
        if age < _REJECTION_SECONDS or not refreshable(connection):
            if await self._still_accepted(connection):
                return self._lasting(connection)
            if not refreshable(connection):
                await self._claims.mark_rejected(connection, int(self._clock()))
                raise InvalidGrant("connection_rejected")
        self._rejections.take(_name_of(connection), self._clock())
        return await self._refresh(connection, min_ttl=min_ttl, rejected=True)

    async def _still_accepted(self, connection: Connection) -> bool:
        """What the upstream's own subject source says; without a clear no, it accepts."""
        now, name = self._clock(), _name_of(connection)
        self._questions.take(name, now)
        upstream = await self._binding.check(connection)
        try:
            async with asyncio.timeout(self._timeouts.flight):
                accepted = await upstream.accepts(connection.tokens.access_token)
        except (UpstreamFailure, TimeoutError):
            return True
        return accepted is not False

    async def _refresh(self, connection: Connection, *, min_ttl: int, rejected: bool) -> Connection:
        """The next generation, of a token that is not good enough or was `rejected`.

        A token that is still valid for `min_ttl` is kept in use through every failure.
        """
        if not refreshable(connection):
            return self._kept(connection, min_ttl, rejected, None)
        try:
            async with asyncio.timeout(self._timeouts.wait):
                latest = await asyncio.shield(self._start(connection, rejected=rejected))
            return self._lasting(latest)
        except GrantRevoked as failure:
            if rejected:
                await self._claims.mark_rejected(connection, int(self._clock()))
            return self._kept(connection, min_ttl, rejected, failure)
        except (UpstreamFailure, StorageUnavailable, TimeoutError) as failure:
            return self._kept(connection, min_ttl, rejected, failure)

    def _kept(
        self,
        connection: Connection,
        min_ttl: int,
        rejected: bool,
        failure: Exception | None,
    ) -> Connection:
        """The connection as it was, if its token is still good enough now; else the refusal."""
        now = self._clock()
        if not rejected and lasts(connection.tokens, now, max(min_ttl, _LEAST_LIFE_SECONDS)):
            return connection
        if failure is None:
            raise InvalidGrant("connection_needs_sign_in")
        if isinstance(failure, GrantRevoked):
            raise InvalidGrant(failure.reason)
        if isinstance(failure, StorageUnavailable):
            raise failure  # ours, and no upstream's
        over = rejected or not lasts(connection.tokens, now, _LEAST_LIFE_SECONDS)
        if over and self._given_up(connection):
            raise InvalidGrant("refresh_token_does_not_work")
        retry_after = failure.retry_after if isinstance(failure, Unavailable) else None
        raise TemporarilyUnavailable("upstream_refresh_failed", retry_after=retry_after or 5)

    def _lasting(self, connection: Connection) -> Connection:
        """The connection if its token is good for a moment; it may have ended on the way here."""
        if not lasts(connection.tokens, self._clock(), _LEAST_LIFE_SECONDS):
            raise TemporarilyUnavailable("upstream_token_already_over")
        return connection

    def _given_up(self, connection: Connection) -> bool:
        """Whether the refresh token has not worked for so long that its user is asked again."""
        now = self._clock()
        if (
            connection.refused_since is not None
            and connection.refusals >= MAX_REFUSALS
            and now - connection.refused_since >= REFUSED_SECONDS
        ):
            return True
        since = uncertain_since(connection, now, self._timeouts.lease)
        if since is None or now - since < _UNKNOWN_SECONDS:
            return False
        others_succeed = self._claimed_refresh.health.succeeded_between(
            connection.key.upstream, max(since, now - _UNKNOWN_SECONDS), now
        )
        return others_succeed or now - since >= _MAX_UNKNOWN_SECONDS

    def _in_flight(self, connection: Connection) -> bool:
        """Whether this very token is being replaced already."""
        return (connection.key, connection.generation) in self._flights

    async def drain(self) -> None:
        """Wait for the flights under way; for the end of the process and for tests."""
        self._claimed_refresh.stop_retrying()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._claimed_refresh.drain()

    def _start(self, connection: Connection, *, rejected: bool) -> asyncio.Task[Connection]:
        key = (connection.key, connection.generation)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(
                self._claimed_refresh.next_generation(connection, rejected=rejected)
            )
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._done(key, done))
        return flight

    def _done(self, key: tuple[ConnectionKey, int], flight: asyncio.Task[Connection]) -> None:
        del self._flights[key]
        error = None if flight.cancelled() else flight.exception()
        if isinstance(error, StorageUnavailable):
            _log.warning("storage_down")
        elif error is not None and not isinstance(error, UpstreamFailure):
            _log.failure("refresh_broke_off", error)


def _name_of(connection: Connection) -> str:
    key = connection.key
    return f"{key.user_id} {key.owner} {key.upstream}"
