"""An event loop on which nobody waits: where nothing is ready, time jumps to the next timer.

For programs whose other side is in memory too. Where something real is waited for (a socket, a
thread), timers may fire before it comes.
"""

import asyncio
import selectors


class _JumpingSelector(selectors.DefaultSelector):
    """Says how long it was to wait instead of waiting."""

    jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.jumped += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped
