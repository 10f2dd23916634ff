"""The calls that are under way to a provider in trouble, by the process that made them."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from tests.drills.lateness import Lateness
from tests.support.callers import waits

# A call is slow after two seconds. A process may decide on another before, and send it later.
_SLOW_SECONDS: Final = 4.0
# So long after its first call failed, a process surely knows.
_KNOWS_AFTER_SECONDS: Final = 4.0

# A replica's number and its process id.
Process = tuple[int, int | None]


@dataclass(eq=False)
class _Call:
    request: web.Request
    process: Process
    since: float


class UnderWay:
    """Counts a call beside those of the same process that still wait for an answer.

    A caller that has given up, or was killed, waits no longer: the kernel knows, and it is asked.
    Our own loop may learn it much later, and the call that came next would count as a second one.
    """

    def __init__(self, lateness: Lateness) -> None:
        self._lateness = lateness
        self._open: list[_Call] = []
        self._saw_it_work: set[Process] = set()
        self._failed_at: dict[Process, float] = {}
        self.most_at_once = self.most_in_trouble = self.beside_a_slow_one = 0

    def begin(self, processes: Iterable[Process]) -> None:
        """The provider fails from now on. These processes saw it work; a later one never does."""
        self._saw_it_work = set(processes)

    @contextmanager
    def call(self, request: web.Request, process: Process) -> Iterator[None]:
        call = _Call(request, process, time.monotonic())
        self._count(call)
        self._open.append(call)
        try:
            yield
        finally:
            self._open.remove(call)
            self._failed_at.setdefault(process, time.monotonic())

    def _count(self, call: _Call) -> None:
        if not waits(call.request):
            return
        others = [o for o in self._open if o.process == call.process and waits(o.request)]
        slow = _SLOW_SECONDS + 2 * self._lateness.recent()
        self.beside_a_slow_one += any(call.since - other.since > slow for other in others)
        self.most_at_once = max(self.most_at_once, len(others) + 1)
        if self._knows(call):
            self.most_in_trouble = max(self.most_in_trouble, len(others) + 1)

    def _knows(self, call: _Call) -> bool:
        """Whether the process that calls knows that the provider does not work."""
        if call.process not in self._saw_it_work:
            return True
        failed_at = self._failed_at.get(call.process)
        allowed = _KNOWS_AFTER_SECONDS + 2 * self._lateness.recent()
        return failed_at is not None and call.since - failed_at > allowed
