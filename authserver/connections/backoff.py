"""Leaving something alone for a while after it failed, longer each time, up to a limit."""

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from authserver.values import Value

_MAX_KEYS: Final = 20_000


class _FailureState(Value, frozen=True):
    failures: int
    until: float


class Backoff:
    """Counts failures in a row by key; bounded in number, in this process's memory.

    The first `patience` failures cost nothing. From then on each one doubles the pause, from
    `first` up to `longest` seconds, of which up to half is left out at random, so that replicas
    and connections do not come back all at once. When a pause is over, one caller at a time may
    try: `may_try` starts the next pause for everybody else.
    """

    def __init__(
        self,
        *,
        threshold: int,
        first: float,
        longest: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._threshold, self._first, self._longest = threshold, first, longest
        self._uniform = uniform
        self._troubles: OrderedDict[Hashable, _FailureState] = OrderedDict()

    def allow(self, key: Hashable, now: float) -> bool:
        """Whether to try now; after a pause, only the first who asks."""
        trouble = self._troubles.get(key)
        if trouble is None or trouble.failures < self._threshold:
            return True
        # A pause that ends later than any lasts was begun before the clock was set back.
        if now < trouble.until <= now + self._longest:
            return False
        self._remember(key, _FailureState(trouble.failures, now + self._pause(trouble.failures)))
        return True

    def failed(self, key: Hashable, now: float) -> None:
        before = self._troubles.get(key)
        failures = before.failures + 1 if before else 1
        self._remember(key, _FailureState(failures, now + self._pause(failures)))

    def succeeded(self, key: Hashable) -> None:
        self._troubles.pop(key, None)

    def _pause(self, failures: int) -> float:
        doublings = min(max(0, failures - self._threshold), 16)
        pause = min(self._longest, self._first * 2.0**doublings)
        return self._uniform(pause / 2, pause)

    def _remember(self, key: Hashable, trouble: _FailureState) -> None:
        self._troubles[key] = trouble
        self._troubles.move_to_end(key)
        if len(self._troubles) > _MAX_KEYS:
            self._troubles.popitem(last=False)
