"""A bound on what is under way at a time, which can also be tried without waiting."""

import asyncio
import contextlib
from collections import deque


class Slots:
    """`count` slots. Those that find none free wait in line, and get one in their order."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a slot at once. False where none is free, or others wait for it."""
        if self._line or not self._free:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Take a slot when it is this caller's turn; cancelled, it leaves the line."""
        if self.take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give_back()
            else:
                with contextlib.suppress(ValueError):
                    self._line.remove(turn)
            raise

    def give_back(self) -> None:
        """Give a slot to the first in line that still waits."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
