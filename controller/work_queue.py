"""Keys to work on: each once at a time, later where it is due later, with a back-off of its own."""

import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from controller.backoff import Backoff, Random

K = TypeVar("K", bound=Hashable)

BACKOFF: Final = Backoff(first=0.5, longest=120.0)


class WorkQueue(Generic[K]):
    """Times are seconds of any monotonic clock; nothing here reads one.

    A key that is added while it is worked on comes again when that work is done. A key that is
    added twice comes once.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ready: deque[K] = deque()
        self._added_at: dict[K, float] = {}  # of every key in _ready
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}  # the earliest time in _later that counts
        self._order = itertools.count()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K, now: float) -> None:
        """Work on it as soon as possible."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._added_at:
            self._added_at[key] = now
            self._ready.append(key)

    def add_at(self, key: K, when: float) -> None:
        """Work on it at that time; an earlier time that was asked for stays."""
        if self._due.get(key, when + 1) > when:
            self._due[key] = when
            heapq.heappush(self._later, (when, next(self._order), key))

    def take(self, now: float) -> K | None:
        """The next key, which is being worked on until `done` or `failed`; None if none is due."""
        self._promote(now)
        if not self._ready:
            return None
        key = self._ready.popleft()
        del self._added_at[key]
        self._running.add(key)
        return key

    def done(self, key: K, now: float) -> None:
        """The work succeeded."""
        self._failures.pop(key, None)
        self._finish(key, now)

    def failed(self, key: K, now: float) -> float:
        """The work failed and is tried again; in how many seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        wait = BACKOFF.seconds(self._failures[key], self._random)
        # A change meanwhile may be the cure, so it does not wait for the back-off to end.
        self._finish(key, now)
        self.add_at(key, now + wait)
        return wait

    def next_due(self) -> float | None:
        """When the earliest later key is due."""
        while self._later and self._due.get(self._later[0][2]) != self._later[0][0]:
            heapq.heappop(self._later)  # an earlier time took its place
        return self._later[0][0] if self._later else None

    def age(self, now: float) -> float:
        """For how many seconds the oldest ready key has waited."""
        return now - self._added_at[self._ready[0]] if self._ready else 0.0

    def _finish(self, key: K, now: float) -> None:
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key, now)

    def _promote(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            key = heapq.heappop(self._later)[2]
            del self._due[key]
            self.add(key, now)
