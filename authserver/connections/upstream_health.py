"""How each upstream answers refreshes, and how many may be on the way to it.

An upstream in trouble gets one probe at a time, after pauses that grow, and no renewals ahead of
time. It is in trouble while a call to it takes long, after some failures in a row, and for as long
as it said itself with Retry-After (RFC 9110 section 10.2.3).
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

_FAILURE_THRESHOLD: Final = 3
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 15.0
_MAX_RETRY_AFTER_SECONDS: Final = 900


@dataclass
class _State:
    failures: int = 0
    probe_at: float = 0.0
    succeeded_at: float | None = None
    in_flight: list[float] = field(default_factory=list)


class UpstreamHealth:
    """In this process's memory, by upstream name; `now` is wall-clock time.

    `monotonic` measures how long a call has been under way.
    """

    def __init__(
        self,
        slow_call: float,
        monotonic: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._slow_call, self._monotonic, self._uniform = slow_call, monotonic, uniform
        self._states: dict[str, _State] = {}

    def troubled(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and (state.failures >= _FAILURE_THRESHOLD or self._is_slow(state))

    def may_call(self, name: str, now: float) -> bool:
        """Whether another refresh may go there now."""
        state = self._states.get(name)
        if state is None or not self.troubled(name):
            return True
        # A pause that ends later than any lasts was begun before the clock was set back.
        paused = now < state.probe_at <= now + _MAX_RETRY_AFTER_SECONDS
        return not state.in_flight and not paused

    @contextmanager
    def calling(self, name: str) -> Iterator[None]:
        """A call is under way."""
        state, started = self._states.setdefault(name, _State()), self._monotonic()
        state.in_flight.append(started)
        try:
            yield
        finally:
            state.in_flight.remove(started)

    def answered(self, name: str, now: float, *, success: bool) -> None:
        """It gave a definite answer: it works."""
        state = self._states.setdefault(name, _State())
        state.failures, state.probe_at = 0, 0.0
        if success:
            state.succeeded_at = now

    def failed(self, name: str, now: float, retry_after: int | None = None) -> None:
        """It gave none, or said that it cannot."""
        state = self._states.setdefault(name, _State())
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

    def _is_slow(self, state: _State) -> bool:
        return any(self._monotonic() - since > self._slow_call for since in state.in_flight)
