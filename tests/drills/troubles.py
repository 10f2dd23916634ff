"""How a provider fails at refreshes in the outage drill, and what it saw meanwhile."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from demo.upstream import FakeUpstream
from demo.upstream.app import Interference
from tests.chaos.surroundings import Child
from tests.drills.lateness import Lateness
from tests.drills.under_way import Process, UnderWay
from tests.support.callers import waits
from tests.support.lost_answers import Acted, newest_token
from tests.support.replica_processes import REPLICA_PARAMETER

HALF: Final = "half acted upon"
MODES: Final = ("hang", "504", "page of HTML", "reset", HALF)
# An answer takes its time, so that calls of one moment are under way together.
_ANSWER_SECONDS: Final = 0.2
_PAGE: Final = "<!doctype html><title>Maintenance</title><p>We are back soon."


@dataclass
class MadeBy(Acted):
    """By whom the refresh was asked for, and how late the machine was then; seconds."""

    process: Process = (0, None)
    late: float = 0.0


class Trouble(Interference):
    """Fails in one mode while `on`; `HALF` acts upon half of the refreshes and loses the answers.

    Each replica names itself in a parameter of its refreshes. Its port would not tell: another
    process may use the same one towards another server.
    """

    def __init__(
        self,
        upstream: FakeUpstream,
        mode: str,
        replicas: Sequence[Child],
        dice: random.Random,
        lateness: Lateness,
    ) -> None:
        self._upstream, self._replicas, self._dice = upstream, replicas, dice
        self._lateness = lateness
        self.mode, self.on, self.calls, self.acted = mode, False, 0, 0
        self.under_way = UnderWay(lateness)
        self.last: dict[int, MadeBy] = {}

    def begin(self) -> None:
        self.on = True
        self.under_way.begin((n, child.pid) for n, child in enumerate(self._replicas))

    async def before(self, request: web.Request, refresh_token: str) -> None:
        if not self.on:
            return
        self.calls += 1
        if self.mode == HALF and self._dice.random() < 0.5:
            return  # `after` loses the answer
        await self._fail(request)

    async def after(self, request: web.Request, refresh_token: str) -> None:
        grant = self._upstream.grants._refresh_tokens[refresh_token]
        acted = MadeBy(
            newest_token(self._upstream, grant),
            time.monotonic(),
            process=await self._process(request),
            late=self._lateness.recent(),
        )
        self.last[id(grant)] = acted
        if self.on:
            self.acted += 1
            acted.answer_lost = True
            await self._fail(request)
        acted.caller_gone = not waits(request)

    async def _fail(self, request: web.Request) -> None:
        """Answer as the mode says; does not return."""
        mode = self._dice.choice(MODES[:-1]) if self.mode == HALF else self.mode
        with self.under_way.call(request, await self._process(request)):
            await asyncio.sleep(_ANSWER_SECONDS)
            await _answer(request, mode, lambda: self.on)

    async def _process(self, request: web.Request) -> Process:
        number = int(str((await request.post())[REPLICA_PARAMETER]))
        return number, self._replicas[number].pid


async def _answer(request: web.Request, mode: str, still: Callable[[], bool]) -> None:
    if mode == "504":
        raise web.HTTPGatewayTimeout
    if mode == "page of HTML":
        raise web.HTTPOk(text=_PAGE, content_type="text/html")
    if mode == "hang":
        while still() and waits(request):
            await asyncio.sleep(0.1)
    if request.transport is not None:
        request.transport.abort()
    raise web.HTTPServiceUnavailable
