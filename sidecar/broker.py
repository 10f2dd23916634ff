"""Hands out tokens: from memory while they last, else by one exchange however many callers wait."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, NamedTuple

from sidecar.cached_token import Lease, Token
from sidecar.errors import DENIALS, TEMPORARILY_UNAVAILABLE, Refusal
from sidecar.metrics import Metrics
from sidecar.token_request import Ask
from sidecar.ttl_cache import BoundedMemory

MAX_LEASES: Final = 10_000
MAX_LEASE_BYTES: Final = 16 * 1024 * 1024
MAX_DENIALS: Final = 1_000
MAX_FLIGHTS: Final = 1_024
DENIAL_SECONDS: Final = 5.0

Key = tuple[bytes, str | None]
Exchange = Callable[[str, Ask], Awaitable[Token | Refusal]]


class _Denied(NamedTuple):
    refusal: Refusal
    asked_at: float


class _Question(NamedTuple):
    """What makes two calls the same question."""

    key: Key
    min_ttl: int
    rejected: str | None


class Broker:
    """Memory, denials and flights of one workload; `now` is a monotonic clock in seconds.

    A key is the SHA-256 of the whole JWT and the upstream asked for. An entry exists only after
    the authserver accepted that very JWT, so a JWT nobody verified can never meet a token.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        ttl_max: int,
        now: Callable[[], float],
        metrics: Metrics,
        wait_seconds: float,
        max_flights: int = MAX_FLIGHTS,
    ) -> None:
        self._exchange, self._ttl_max, self._now = exchange, ttl_max, now
        self._metrics, self._wait_seconds, self._max_flights = metrics, wait_seconds, max_flights
        self._leases = BoundedMemory[Lease](max_entries=MAX_LEASES, max_weight=MAX_LEASE_BYTES)
        self._denials = BoundedMemory[_Denied](max_entries=MAX_DENIALS, max_weight=MAX_DENIALS)
        self._flights: dict[_Question, asyncio.Task[Lease | Refusal]] = {}
        metrics.count_entries(lambda: self.entries)

    @property
    def entries(self) -> int:
        return len(self._leases)

    def recall(self, unverified_jwt: str, ask: Ask) -> Lease | None:
        """The token in memory that answers `ask`, if there is one."""
        if ask.rejected is not None:
            return None
        now = self._now()
        lease = self._leases.get(_key(unverified_jwt, ask), now)
        return lease if lease is not None and lease.lasts(ask.min_ttl, now) else None

    async def obtain(self, unverified_jwt: str, ask: Ask) -> Lease | Refusal:
        """Ask the authserver, together with everyone who is asking the same right now.

        The exchange belongs to no caller: one that is cancelled, or waits no longer, takes
        nothing from the others, and what comes of it is remembered.
        """
        key = _key(unverified_jwt, ask)
        denied = self._denials.get(key, self._now())
        if denied is not None:
            self._metrics.cache("negative")
            return denied.refusal
        self._let_go_of_rejected(key, ask)
        question = _Question(key, ask.min_ttl, ask.rejected)
        flight = self._flights.get(question)
        self._metrics.cache("miss" if flight is None else "coalesced")
        if flight is None:
            if len(self._flights) >= self._max_flights:
                return TEMPORARILY_UNAVAILABLE.because("too_many_exchanges")
            flight = self._take_off(question, unverified_jwt, ask)
        await asyncio.wait((flight,), timeout=self._wait_seconds)
        if not flight.done():
            return TEMPORARILY_UNAVAILABLE.because("waited_too_long")
        if flight.cancelled():
            return TEMPORARILY_UNAVAILABLE.because("shutting_down")
        return flight.result()

    def sweep(self) -> None:
        """Forget what is past its time even if nobody asks for it again."""
        self._leases.sweep(self._now())
        self._denials.sweep(self._now())

    def give_up(self) -> None:
        """End every exchange under way; whoever waits for one is told to come back."""
        for flight in self._flights.values():
            flight.cancel()

    def _take_off(
        self, question: _Question, unverified_jwt: str, ask: Ask
    ) -> asyncio.Task[Lease | Refusal]:
        flight = asyncio.create_task(self._fly(question.key, unverified_jwt, ask))
        self._flights[question] = flight
        flight.add_done_callback(lambda _: self._flights.pop(question, None))
        return flight

    async def _fly(self, key: Key, unverified_jwt: str, ask: Ask) -> Lease | Refusal:
        asked_at = self._now()
        outcome = await self._exchange(unverified_jwt, ask)
        if isinstance(outcome, Token):
            lease = Lease(outcome, asked_at=asked_at, ttl_max=self._ttl_max)
            self._keep(key, lease)
            return lease
        if outcome.error in DENIALS:
            self._remember_denial(key, _Denied(outcome, asked_at))
        # Anything else is an outage: what is in memory stays good until its time.
        return outcome

    def _keep(self, key: Key, lease: Lease) -> None:
        now = self._now()
        if lease.until > now and not self._knows_newer(key, lease.asked_at, now):
            self._leases.put(key, lease, until=lease.until, weight=lease.weight)

    def _remember_denial(self, key: Key, denied: _Denied) -> None:
        now = self._now()
        if not self._knows_newer(key, denied.asked_at, now):
            self._leases.drop(key)
            self._denials.put(key, denied, until=denied.asked_at + DENIAL_SECONDS)

    def _knows_newer(self, key: Key, asked_at: float, now: float) -> bool:
        """Whether a later question has been answered already; answers may overtake each other."""
        known = (self._leases.get(key, now), self._denials.get(key, now))
        return any(entry is not None and entry.asked_at > asked_at for entry in known)

    def _let_go_of_rejected(self, key: Key, ask: Ask) -> None:
        lease = self._leases.get(key, self._now())
        if lease is not None and lease.fingerprint == ask.rejected:
            self._leases.drop(key)


def _key(unverified_jwt: str, ask: Ask) -> Key:
    return sha256(unverified_jwt.encode()).digest(), ask.upstream
