"""How a provider fails at refreshes in the outage drill, and what it saw meanwhile."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from demo.upstream import FakeUpstream
from demo.upstream.app import Interference
from tests.chaos.surroundings import Child
from tests.support.lost_answers import Acted, newest_token

HALF: Final = "half acted upon"
MODES: Final = ("hang", "504", "page of HTML", "reset", HALF)
# A call is slow after two seconds; this much more for a machine that is busy.
_SLOW_SECONDS: Final = 4.0
# After that every replica knows.
_TROUBLE_SECONDS: Final = 12.0
# A call that was given up is seen to be so before the next one is counted.
_HANG_UP_SECONDS: Final = 0.05
_PAGE: Final = "<!doctype html><title>Maintenance</title><p>We are back soon."


@dataclass
class Seen:
    """What the upstream counted; `calls` during the outage only."""

    calls: int = 0
    acted: int = 0
    most_at_once: int = 0
    most_in_trouble: int = 0
    beside_a_slow_one: int = 0
    open: dict[int | None, list[tuple[web.Request, float]]] = field(default_factory=dict)


class Trouble(Interference):
    """Fails in one mode while `on`; `HALF` acts upon half of the refreshes and loses the answers.

    Calls are told apart by the replica that made them.
    """

    def __init__(
        self, upstream: FakeUpstream, mode: str, replicas: Sequence[Child], dice: random.Random
    ) -> None:
        self._upstream, self._replicas, self._dice = upstream, replicas, dice
        self.mode, self.on, self.seen = mode, False, Seen()
        self.began_at = 0.0
        self.last: dict[int, Acted] = {}

    async def before(self, request: web.Request, refresh_token: str) -> None:
        if not self.on:
            return
        self.seen.calls += 1
        if self.mode == HALF and self._dice.random() < 0.5:
            return  # `after` loses the answer
        await self._fail(request)

    async def after(self, request: web.Request, refresh_token: str) -> None:
        grant = self._upstream.grants._refresh_tokens[refresh_token]
        acted = Acted(newest_token(self._upstream, grant), time.monotonic())
        self.last[id(grant)] = acted
        if self.on:
            self.seen.acted += 1
            acted.answer_lost = True
            await self._fail(request)
        await asyncio.sleep(_HANG_UP_SECONDS)
        acted.caller_gone = not _connected(request)

    async def _fail(self, request: web.Request) -> None:
        """Answer as the mode says; does not return."""
        mine = self.seen.open.setdefault(self._who(request), [])
        await asyncio.sleep(_HANG_UP_SECONDS)
        call = (request, time.monotonic())
        self._count(mine, call[1])
        mine.append(call)
        try:
            mode = self._dice.choice(MODES[:-1]) if self.mode == HALF else self.mode
            await _answer(request, mode, lambda: self.on)
        finally:
            mine[:] = [other for other in mine if other is not call]

    def _count(self, mine: list[tuple[web.Request, float]], now: float) -> None:
        """A call has come beside these of the same replica."""
        others = [since for request, since in mine if _connected(request)]
        self.seen.beside_a_slow_one += any(now - since > _SLOW_SECONDS for since in others)
        self.seen.most_at_once = max(self.seen.most_at_once, len(others) + 1)
        if now - self.began_at > _TROUBLE_SECONDS:
            self.seen.most_in_trouble = max(self.seen.most_in_trouble, len(others) + 1)

    def _who(self, request: web.Request) -> int | None:
        """The replica that called; None where it is gone already."""
        transport = request.transport
        if transport is None:
            return None
        port = transport.get_extra_info("peername")[1]
        inode = _inode_of(port)
        for number, child in enumerate(self._replicas):
            if child.pid is not None and inode in _sockets_of(child.pid):
                return number
        return None


async def _answer(request: web.Request, mode: str, still: Callable[[], bool]) -> None:
    if mode == "504":
        raise web.HTTPGatewayTimeout
    if mode == "page of HTML":
        raise web.HTTPOk(text=_PAGE, content_type="text/html")
    if mode == "hang":
        while still() and _connected(request):
            await asyncio.sleep(0.1)
    if request.transport is not None:
        request.transport.abort()
    raise web.HTTPServiceUnavailable


def _connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _inode_of(port: int) -> str:
    """The socket on 127.0.0.1 whose own port this is, by Linux's table."""
    own = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1] == own:
            return columns[9]
    return ""


def _sockets_of(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    return found
