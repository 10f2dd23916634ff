"""Making tokens out of a connection's by an exchange (RFC 8693), once however many wait for one.

The claim, the back-off and the health of upstreams are those of refreshes (`refresh_claims`). An
exchange spends nothing: the token that it is made of stays what it was. So one of unknown outcome
is made again after a pause, and costs nobody a sign-in.
"""

import asyncio
from typing import Final

from authserver.connections.freshness import lasts, margin
from authserver.connections.refresh_claims import Ask, ClaimedRefresh
from authserver.connections.refresher import TokenRefresher
from authserver.connections.timeouts import RefreshTimeouts
from authserver.oauth.errors import InvalidGrant, ProtocolError, TemporarilyUnavailable
from authserver.oauth.exchange_target import ExchangeTarget
from authserver.rate_limit import RateLimit
from authserver.storage.contract import StorageUnavailable
from authserver.storage.exchanged_tokens import ExchangedTokens
from authserver.storage.records import Connection, ConnectionKey, UpstreamTokens
from authserver.upstream.contract import (
    ExchangeRequest,
    ExchangingUpstream,
    GrantRevoked,
    RefreshRequest,
    SubjectTokenRefused,
    Unavailable,
    Upstream,
    UpstreamFailure,
)
from authserver.values import Value
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("token_exchanger")

# A token this young is as fresh as its upstream makes them, whatever `min_ttl` asks for.
_YOUNG_SECONDS: Final = 10
# What is left of a token when it is released; `expires_in` is never 0 (RFC 6749 section 5.1).
_LEAST_LIFE_SECONDS: Final = 1
# A report of rejection makes one token anew in this time.
_REJECTION_SECONDS: Final = 60
# A refusal of the token that is exchanged may have that one renewed once in this time. Servers
# refuse for reasons of their own too, and each renewal is a forced rotation.
_HINT_SECONDS: Final = 600


class WantedToken(Value, frozen=True):
    """A token for `target`, to be made of the tokens of `parent`. `stored` is what there is."""

    parent: Connection
    upstream: ExchangingUpstream
    target: ExchangeTarget
    stored: Connection | None

    @property
    def key(self) -> ConnectionKey:
        return exchanged_key(self.parent.key, self.upstream, self.target)


def exchanged_key(
    parent: ConnectionKey, upstream: ExchangingUpstream, target: ExchangeTarget
) -> ConnectionKey:
    """Where a token for `target` is kept: apart from those for every other one."""
    variant = upstream.variant(target)
    return ConnectionKey(parent.user_id, parent.owner, upstream.name, parent.upstream, variant)


class TokenExchanger:
    def __init__(
        self,
        refresher: TokenRefresher,
        claimed_refresh: ClaimedRefresh,
        exchanged_tokens: ExchangedTokens,
        clock: Clock,
        timeouts: RefreshTimeouts,
    ) -> None:
        self._refresher, self._claimed_refresh = refresher, claimed_refresh
        self._exchanged_tokens, self._clock, self._timeouts = exchanged_tokens, clock, timeouts
        self._rejections = RateLimit("rejected_tokens", 1, _REJECTION_SECONDS)
        self._hints = RateLimit("subject_token_refused", 1, _HINT_SECONDS)
        self._flights: dict[tuple[ConnectionKey, int], asyncio.Task[Connection]] = {}

    def usable_now(self, stored: Connection, min_ttl: int) -> bool:
        """Whether a stored token can be released as it is."""
        now, tokens = self._clock(), stored.tokens
        if not stored.generation:
            return False
        needs = max(margin(tokens), _LEAST_LIFE_SECONDS)
        if now - tokens.obtained_at >= _YOUNG_SECONDS:
            needs = max(min_ttl, needs)
        return lasts(tokens, now, needs)

    async def usable(self, wanted: WantedToken, *, min_ttl: int, rejected: bool) -> Connection:
        """A token to release, made now by one call for all who wait.

        `rejected`: an API turned the stored one down. Raises InvalidGrant where only a sign-in at
        the parent's upstream helps, TemporarilyUnavailable where time may, and RateLimited.
        """
        if wanted.parent.rejected:
            raise InvalidGrant("connection_rejected")
        if wanted.parent.dead:
            raise InvalidGrant("connection_needs_sign_in")
        if rejected and not self._in_flight(wanted):
            self._rejections.take(_name_of(wanted.key), self._clock())
        try:
            async with asyncio.timeout(self._timeouts.wait):
                made = await asyncio.shield(self._start(wanted, rejected=rejected))
        except InvalidGrant as refusal:
            # One for each who waits: each gets a link of its own.
            raise InvalidGrant(refusal.reason) from None
        except (ProtocolError, UpstreamFailure, StorageUnavailable, TimeoutError) as failure:
            return self._kept(wanted.stored, min_ttl, rejected, failure)
        if not lasts(made.tokens, self._clock(), _LEAST_LIFE_SECONDS):
            raise TemporarilyUnavailable("upstream_token_already_over")
        return made

    async def drain(self) -> None:
        """Wait for the flights under way; for the end of the process and for tests."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    def _kept(
        self, stored: Connection | None, min_ttl: int, rejected: bool, failure: Exception
    ) -> Connection:
        """What is stored, if it is still good enough; else the refusal."""
        if (
            stored is not None
            and not rejected
            and lasts(stored.tokens, self._clock(), max(min_ttl, _LEAST_LIFE_SECONDS))
        ):
            return stored
        retry_after = failure.retry_after if isinstance(failure, Unavailable) else None
        raise TemporarilyUnavailable("upstream_exchange_failed", retry_after=retry_after or 5)

    def _in_flight(self, wanted: WantedToken) -> bool:
        return _flight_of(wanted) in self._flights

    def _start(self, wanted: WantedToken, *, rejected: bool) -> asyncio.Task[Connection]:
        key = _flight_of(wanted)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._made(wanted, rejected=rejected))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._done(key, done))
        return flight

    def _done(self, key: tuple[ConnectionKey, int], flight: asyncio.Task[Connection]) -> None:
        del self._flights[key]
        error = None if flight.cancelled() else flight.exception()
        if error is not None and not isinstance(error, UpstreamFailure | ProtocolError):
            _log.failure("exchange_broke_off", error)

    async def _made(self, wanted: WantedToken, *, rejected: bool) -> Connection:
        """The next generation: refreshed where there is a refresh token, else made anew."""
        target = wanted.target
        row = await self._exchanged_tokens.prepare(
            wanted.key,
            wanted.parent,
            wanted.upstream.registration,
            asked_scope=" ".join(target.scopes),
            asked_audience=" ".join((*target.audiences, *target.resources)),
            now=int(self._clock()),
        )
        if row is None:
            raise Unavailable("connection_gone")
        if row.generation > _generation(wanted) and self.usable_now(row, 0):
            return row  # another replica was quicker
        if row.tokens.refresh_token is not None and row.first_claimed_at is None and not rejected:
            try:
                return await self._refreshed(wanted, row)
            except UpstreamFailure:
                pass  # logged where it happened; the parent's token makes another one
        return await self._from_parent(wanted, row)

    async def _refreshed(self, wanted: WantedToken, row: Connection) -> Connection:
        async def ask(upstream: Upstream, request: RefreshRequest) -> UpstreamTokens:
            try:
                tokens = await upstream.refresh(request)
            except GrantRevoked:
                # It ends this token's own grant, which is made again, and not the user's.
                raise Unavailable("refresh_token_refused", refused=True) from None
            if not wanted.upstream.is_within(tokens, wanted.target):
                raise Unavailable("exchange_gave_more", member="scope", refused=True)
            return tokens

        return await self._next_generation(row, ask)

    async def _from_parent(self, wanted: WantedToken, row: Connection) -> Connection:
        parent = wanted.parent
        if not self._refresher.usable_now(parent, 0):
            parent = await self._refresher.usable(parent, min_ttl=0, rejected=False)
        try:
            return await self._exchanged(wanted, row, parent)
        except SubjectTokenRefused:
            renewed = await self._renewed(parent)
            if renewed is None:
                raise
        return await self._exchanged(wanted, row, renewed)

    async def _renewed(self, parent: Connection) -> Connection | None:
        """The parent with another token than the refused one; None where there is none to be had.

        Raises InvalidGrant where its upstream says that the grant is over.
        """
        try:
            self._hints.take(_name_of(parent.key), self._clock())
            renewed = await self._refresher.usable(parent, min_ttl=0, rejected=True)
        except InvalidGrant:
            raise
        except ProtocolError:
            return None
        same = renewed.tokens.access_token == parent.tokens.access_token
        return None if same else renewed

    async def _exchanged(
        self, wanted: WantedToken, row: Connection, parent: Connection
    ) -> Connection:
        async def ask(_: Upstream, request: RefreshRequest) -> UpstreamTokens:
            subject_token = parent.tokens.access_token
            return await wanted.upstream.exchange(
                ExchangeRequest(subject_token, wanted.target, request.may_send)
            )

        return await self._next_generation(row, ask)

    async def _next_generation(self, row: Connection, ask: Ask) -> Connection:
        try:
            return await self._claimed_refresh.next_generation(row, ask=ask)
        except GrantRevoked as gone:
            # The row went with its connection, or was made again with it.
            raise Unavailable(gone.reason) from None


def _generation(wanted: WantedToken) -> int:
    return wanted.stored.generation if wanted.stored is not None else 0


def _flight_of(wanted: WantedToken) -> tuple[ConnectionKey, int]:
    return wanted.key, _generation(wanted)


def _name_of(key: ConnectionKey) -> str:
    return f"{key.user_id} {key.owner} {key.made_of} {key.upstream} {key.variant}"
