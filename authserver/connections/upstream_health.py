"""How each upstream answers refreshes, and how many may be on the way to it.

An upstream works from its first success on, until a call to it fails. Where it is not known to
work, one call goes at a time, and everybody else waits for its outcome.

An upstream in trouble gets one probe at a time, after pauses that grow. It is in trouble while a
call to it takes long, after some failures in a row, and for as long as it said itself with
Retry-After (RFC 9110 section 10.2.3). Tokens of unknown fate go first, so that no other is put at
risk.

The rule is looked at twice: for a place, and right before the token is sent. In between a claim is
written, and the upstream may have ceased to work.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from authserver.upstream.contract import Unavailable
from chassis.clock import Clock

_FAILURE_THRESHOLD: Final = 3
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 15.0
_MAX_RETRY_AFTER_SECONDS: Final = 900
# How much later a token may be presented that was not at risk yet; callers ask again within it.
_HEAD_START_SECONDS: Final = 3.0


@dataclass
class _State:
    works: bool = False
    failures: int = 0
    probe_at: float = 0.0
    succeeded_at: float | None = None
    fates_unknown: bool = False
    places: list["Place"] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Place:
    """A place among the calls to an upstream, until it is given back or its block ends.

    `sent`: its token is on the way. `withheld`: its token was not sent, by our own decision.
    """

    def __init__(
        self, state: _State, monotonic: Callable[[], float], free: Callable[["Place"], bool]
    ) -> None:
        self._state, self._monotonic, self._free = state, monotonic, free
        self.called_at: float | None = None
        self.sent = self.withheld = False
        state.places.append(self)

    def call(self) -> None:
        """The call begins: from here on it may turn out slow."""
        self.called_at = self._monotonic()

    def may_send(self) -> bool:
        """Whether the token may be sent now; then it counts as sent.

        Not beside another that was sent, if the upstream has ceased to work since the place was
        taken.
        """
        self.sent = self._free(self)
        self.withheld = not self.sent
        return self.sent

    def withhold(self) -> bool:
        """Do not send the token; the upstream had no part in that."""
        self.withheld = True
        return False

    def give_back(self) -> None:
        if self in self._state.places:
            self._state.places.remove(self)
            self._state.changed.set()
            self._state.changed = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()


class UpstreamHealth:
    """In this process's memory, by upstream name; `clock` gives wall-clock time.

    `monotonic` measures how long a call has been under way.
    """

    def __init__(
        self,
        slow_call: float,
        clock: Clock,
        monotonic: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._slow_call, self._clock, self._monotonic = slow_call, clock, monotonic
        self._uniform = uniform
        self._states: dict[str, _State] = {}

    def doubtful(self, name: str) -> bool:
        """Whether its last call failed or takes long: no token that serves is put at risk."""
        state = self._states.get(name)
        return state is not None and (state.failures > 0 or self._is_slow(state))

    async def place(self, name: str, *, fate_unknown: bool) -> Place:
        """A place for one refresh that may go there now. Raises Unavailable.

        `fate_unknown`: its token may have been taken without an answer that we know.
        """
        state = self._states.setdefault(name, _State())
        await self._outcome_of_others(state)
        if not self._free(state, fate_unknown, beside_others=bool(state.places)):
            raise Unavailable("upstream_backing_off")

        def still_free(place: Place) -> bool:
            sent = any(other.sent for other in state.places if other is not place)
            return self._free(state, fate_unknown, beside_others=sent)

        return Place(state, self._monotonic, still_free)

    async def _outcome_of_others(self, state: _State) -> None:
        """Wait until no call is on the way to an upstream that may not work, or a call is slow."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._slow_call)):
                while state.places and not state.works and not self._troubled(state):
                    await state.changed.wait()

    def _free(self, state: _State, fate_unknown: bool, *, beside_others: bool) -> bool:
        if not self._troubled(state):
            return state.works or not beside_others
        now = self._clock()
        head_start = state.fates_unknown and not fate_unknown
        until = state.probe_at + (_HEAD_START_SECONDS if head_start else 0.0)
        # A pause that ends later than any lasts was begun before the clock was set back.
        paused = now < until <= now + _MAX_RETRY_AFTER_SECONDS + _HEAD_START_SECONDS
        return not beside_others and not paused

    def answered(self, name: str, *, success: bool) -> None:
        """It gave a definite answer: another call may go at once.

        It works only if it gave tokens. After a refusal, one more failure is trouble again.
        """
        state = self._states.setdefault(name, _State())
        state.failures, state.probe_at = min(state.failures, _FAILURE_THRESHOLD - 1), 0.0
        if success:
            state.works, state.fates_unknown, state.failures = True, False, 0
            state.succeeded_at = self._clock()

    def failed(self, name: str, retry_after: int | None = None, *, unknown: bool = False) -> None:
        """It gave none, or said that it cannot. `unknown`: it may have acted all the same."""
        state, now = self._states.setdefault(name, _State()), self._clock()
        state.works = False
        state.fates_unknown |= unknown
        state.failures += 1
        doublings = min(max(0, state.failures - _FAILURE_THRESHOLD), 16)
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**doublings)
        state.probe_at = now + self._uniform(pause / 2, pause)
        if retry_after:
            state.failures = max(state.failures, _FAILURE_THRESHOLD)
            asked_for = min(retry_after, _MAX_RETRY_AFTER_SECONDS)
            state.probe_at = max(state.probe_at, now + asked_for)

    def succeeded_between(self, name: str, earliest: float, latest: float) -> bool:
        """Whether its last success lies in this time."""
        state = self._states.get(name)
        moment = state.succeeded_at if state is not None else None
        return moment is not None and earliest < moment <= latest

    def _troubled(self, state: _State) -> bool:
        return state.failures >= _FAILURE_THRESHOLD or self._is_slow(state)

    def _is_slow(self, state: _State) -> bool:
        return any(
            place.called_at is not None and self._monotonic() - place.called_at > self._slow_call
            for place in state.places
        )
