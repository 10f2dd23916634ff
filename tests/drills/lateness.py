"""How late a busy machine is, so that its slowness is not taken for a fault of the product."""

import asyncio
import time
from collections import deque
from typing import Final

_EVERY_SECONDS: Final = 0.1
_RECENT_SECONDS: Final = 15.0


class Lateness:
    """How much longer than asked for our own event loop slept; seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()
        self.worst = 0.0

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            begun = time.monotonic()
            await asyncio.sleep(_EVERY_SECONDS)
            now = time.monotonic()
            self.note(now, now - begun - _EVERY_SECONDS)

    def note(self, now: float, late: float) -> None:
        self._seen.append((now, late))
        while self._seen[0][0] < now - _RECENT_SECONDS:
            self._seen.popleft()
        self.worst = max(self.worst, late)

    def recent(self) -> float:
        """The worst of the last fifteen seconds: longer than any call is waited for."""
        return max((late for _, late in self._seen), default=0.0)
