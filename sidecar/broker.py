"""Hands out tokens: from memory while they last, else by one exchange however many callers wait."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from typing import Final, NamedTuple

from chassis.clock import Clock
from sidecar.cached_token import CachedToken, Token
from sidecar.ended_handles import EndedHandles
from sidecar.errors import DENIALS, TEMPORARILY_UNAVAILABLE, ApiError
from sidecar.metrics import Metrics
from sidecar.token_request import TokenRequest
from sidecar.ttl_cache import TtlCache

MAX_LEASES: Final = 10_000
MAX_LEASE_BYTES: Final = 16 * 1024 * 1024
MAX_DENIALS: Final = 1_000
MAX_FLIGHTS: Final = 1_024
MAX_ACCEPTED: Final = 10_000
ACCEPTED_SECONDS: Final = 3_600.0  # longer than most JWTs live
DENIAL_SECONDS: Final = 5.0
# A token whose session ended while it was on its way is asked for once more.
_MOST_ASKED: Final = 2

# The hash of a JWT, the upstream, and what is wanted of the token beside its life.
Key = tuple[bytes, str | None, str | None, str | None, str | None]
Exchange = Callable[[str, TokenRequest], Awaitable[Token | ApiError]]


class _Denied(NamedTuple):
    refusal: ApiError
    asked_at: float


class _Question(NamedTuple):
    """What makes two calls the same question."""

    key: Key
    min_ttl: int
    rejected: str | None


class Broker:
    """Memory, denials and flights of one workload; `now` is a monotonic clock in seconds.

    A key is the SHA-256 of the whole JWT, the upstream asked for, and the scopes and audience. An
    entry exists only after
    the authserver accepted that very JWT, so a JWT nobody verified can never meet a token.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        ttl_max: int,
        now: Clock,
        metrics: Metrics,
        wait_seconds: float,
        max_flights: int = MAX_FLIGHTS,
    ) -> None:
        self._exchange, self._ttl_max, self._now = exchange, ttl_max, now
        self._metrics, self._wait_seconds, self._max_flights = metrics, wait_seconds, max_flights
        self._leases = TtlCache[CachedToken](max_entries=MAX_LEASES, max_weight=MAX_LEASE_BYTES)
        self._denials = TtlCache[_Denied](max_entries=MAX_DENIALS, max_weight=MAX_DENIALS)
        self.ended = EndedHandles(now)
        self._flights: dict[_Question, asyncio.Task[CachedToken | ApiError]] = {}
        # By the hash of a JWT: half of the flights are kept for those that were accepted before.
        self._accepted = TtlCache[bool](max_entries=MAX_ACCEPTED, max_weight=MAX_ACCEPTED)
        self._first_flights = 0
        metrics.count_entries(lambda: self.entries)

    @property
    def entries(self) -> int:
        return len(self._leases)

    def cached(self, jwt_hash: bytes, token_request: TokenRequest) -> CachedToken | None:
        """The token in memory that answers the request for a JWT of that hash, if there is one."""
        if token_request.rejected is not None or token_request.missing_scope is not None:
            return None
        return self.held(_key_at(jwt_hash, token_request), token_request.min_ttl)

    def held(self, key: Key, min_ttl: int = 0) -> CachedToken | None:
        """The token in memory under `key` that lasts for `min_ttl` seconds, if there is one."""
        now = self._now()
        cached_token = self._leases.get(key, now)
        if cached_token is None or not cached_token.lasts(min_ttl, now):
            return None
        return cached_token

    async def obtain(
        self, unverified_jwt: str, token_request: TokenRequest
    ) -> CachedToken | ApiError:
        """Ask the authserver, once for all callers that ask the same at this moment.

        The exchange belongs to no caller: one that is cancelled, or waits no longer, takes
        nothing from the others, and what comes of it is remembered.
        """
        key = key_of(unverified_jwt, token_request)
        denied = self._denials.get(key, self._now())
        if denied is not None:
            self._metrics.cache("negative")
            return denied.refusal
        self._evict_rejected(key, token_request)
        question = _Question(key, token_request.min_ttl, token_request.rejected)
        flight = self._flights.get(question)
        self._metrics.cache("miss" if flight is None else "coalesced")
        if flight is None:
            if not self._has_room(key):
                return TEMPORARILY_UNAVAILABLE.with_reason("too_many_exchanges")
            flight = self._start(question, unverified_jwt, token_request)
        await asyncio.wait((flight,), timeout=self._wait_seconds)
        if not flight.done():
            return TEMPORARILY_UNAVAILABLE.with_reason("waited_too_long")
        if flight.cancelled():
            return TEMPORARILY_UNAVAILABLE.with_reason("shutting_down")
        outcome = flight.result()
        if isinstance(outcome, CachedToken) and self._has_ended(outcome):
            return TEMPORARILY_UNAVAILABLE.with_reason("ended_meanwhile")
        return outcome

    def end(self, handles: Collection[str]) -> int:
        """Drop the tokens of ended sessions and connections; how many there were."""

        def is_ended(cached_token: CachedToken) -> bool:
            identity = cached_token.identity
            return identity is not None and (
                identity.session in handles or identity.connection in handles
            )

        return self._leases.drop_where(is_ended)

    def end_everything(self) -> int:
        """Drop every token, and those that are on their way; how many there were in memory."""
        self.ended.announce_everything()
        return self._leases.drop_where(lambda _: True)

    def sweep(self) -> None:
        """Forget what is past its time even if nobody asks for it again."""
        self._leases.sweep(self._now())
        self._denials.sweep(self._now())
        self.ended.sweep()
        self._accepted.sweep(self._now())

    def cancel_all(self) -> None:
        """End every exchange under way; whoever waits for one is told to come back."""
        for flight in self._flights.values():
            flight.cancel()

    def _has_room(self, key: Key) -> bool:
        """Whether one more exchange may begin: strangers' JWTs take half of the room at most."""
        if len(self._flights) >= self._max_flights:
            return False
        return self._was_accepted(key) or self._first_flights < self._max_flights // 2

    def _was_accepted(self, key: Key) -> bool:
        return self._accepted.get(key[0], self._now()) is not None

    def _start(
        self, question: _Question, unverified_jwt: str, token_request: TokenRequest
    ) -> asyncio.Task[CachedToken | ApiError]:
        flight = asyncio.create_task(
            self._exchange_once(question.key, unverified_jwt, token_request)
        )
        self._flights[question] = flight
        first = 0 if self._was_accepted(question.key) else 1
        self._first_flights += first
        flight.add_done_callback(lambda _: self._landed(question, first))
        return flight

    def _landed(self, question: _Question, first: int) -> None:
        self._flights.pop(question, None)
        self._first_flights -= first

    async def _exchange_once(
        self, key: Key, unverified_jwt: str, token_request: TokenRequest
    ) -> CachedToken | ApiError:
        for _ in range(_MOST_ASKED):
            asked_at = self._now()
            outcome = await self._exchange(unverified_jwt, token_request)
            if not isinstance(outcome, Token):
                break
            cached_token = CachedToken(outcome, asked_at=asked_at, ttl_max=self._ttl_max)
            if not self._has_ended(cached_token):
                self._keep(key, cached_token)
                self._accepted.put(key[0], True, until=asked_at + ACCEPTED_SECONDS)
                return cached_token
        else:
            return TEMPORARILY_UNAVAILABLE.with_reason("ended_meanwhile")
        # A challenge asks a person. Their answer, also a no, has to count for the very next call.
        if outcome.error in DENIALS and outcome.scope is None:
            self._remember_denial(key, _Denied(outcome, asked_at))
        # Anything else is an outage: what is in memory stays good until its time.
        return outcome

    def _has_ended(self, cached_token: CachedToken) -> bool:
        """Whether its session or connection ended since it was asked for."""
        return self.ended.cover(cached_token.identity, cached_token.asked_at)

    def _keep(self, key: Key, cached_token: CachedToken) -> None:
        now = self._now()
        if cached_token.until > now and not self._knows_newer(key, cached_token.asked_at, now):
            self._leases.put(
                key, cached_token, until=cached_token.until, weight=cached_token.weight
            )

    def _remember_denial(self, key: Key, denied: _Denied) -> None:
        now = self._now()
        if not self._knows_newer(key, denied.asked_at, now):
            self._leases.drop(key)
            self._denials.put(key, denied, until=denied.asked_at + DENIAL_SECONDS)

    def _knows_newer(self, key: Key, asked_at: float, now: float) -> bool:
        """Whether a later question has been answered already; answers may overtake each other."""
        known = (self._leases.get(key, now), self._denials.get(key, now))
        return any(entry is not None and entry.asked_at > asked_at for entry in known)

    def _evict_rejected(self, key: Key, token_request: TokenRequest) -> None:
        cached_token = self._leases.get(key, self._now())
        if cached_token is not None and cached_token.fingerprint == token_request.rejected:
            self._leases.drop(key)


def hash_of(unverified_jwt: str) -> bytes:
    """What memory knows of a JWT: its SHA-256."""
    return sha256(unverified_jwt.encode()).digest()


def key_of(unverified_jwt: str, token_request: TokenRequest) -> Key:
    """Where memory has what answers the request."""
    return _key_at(hash_of(unverified_jwt), token_request)


def _key_at(jwt_hash: bytes, token_request: TokenRequest) -> Key:
    return (
        jwt_hash,
        token_request.upstream,
        token_request.missing_scope,
        token_request.target_audience,
        token_request.scope,
    )
