"""The authserver dies under a busy sidecar and comes back; both are processes of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

from tests.resilience.answers import is_an_outage
from tests.resilience.processes import USERS, Stack, stack
from tests.sidecar.harness import Reply

MISSING = 4  # callers at a time, per user
PATIENCE_SECONDS = 20  # for each stage, before it counts as failed

Answered = tuple[str, Reply]


@dataclass
class Seen:
    """Answers by user, in the order they came."""

    hits: list[Answered] = field(default_factory=list)
    misses: list[Answered] = field(default_factory=list)

    def outages(self) -> int:
        return sum(is_an_outage(reply) for _, reply in self.misses)


async def test_a_killed_authserver_costs_misses_a_503_and_nobody_a_token(tmp_path: Path) -> None:
    async with stack(tmp_path) as s:
        for user in USERS:
            assert s.user_of(await s.ask(s.jwts[user])) == user
        seen = Seen()
        async with under_load(s, seen):
            await _until(lambda: len(seen.misses) >= 100 and len(seen.hits) >= 20)
            await s.authserver.end()
            hits = len(seen.hits)
            await _until(lambda: seen.outages() >= 100 and len(seen.hits) >= hits + 20)
            await s.authserver.start()
            await s.ready(s.authserver, s.layout.ops)
            misses = len(seen.misses)
            await _until(lambda: len(seen.misses) >= misses + 100)
        for user, reply in seen.hits:
            assert s.user_of(reply) == user
        for user, reply in seen.misses:
            assert is_an_outage(reply) or s.user_of(reply) == user
        for user in USERS:
            assert s.user_of(await s.ask(next(s.unseen(user)))) == user
        assert s.sidecar.running


@asynccontextmanager
async def under_load(s: Stack, seen: Seen) -> AsyncIterator[None]:
    """Callers that go on until the block ends, and finish what they are at."""
    over = asyncio.Event()

    async def keep_asking(user: str, jwts: Iterator[str], answers: list[Answered]) -> None:
        while not over.is_set():
            answers.append((user, await s.ask(next(jwts))))
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as callers:
        for user in USERS:
            callers.create_task(keep_asking(user, repeat(s.jwts[user]), seen.hits))
            for _ in range(MISSING):
                callers.create_task(keep_asking(user, s.unseen(user), seen.misses))
        yield
        over.set()


async def test_500_misses_at_once_are_one_release(tmp_path: Path) -> None:
    async with stack(tmp_path) as s:
        jwt = next(s.unseen("alice"))
        replies = await asyncio.gather(*(s.ask(jwt) for _ in range(500)))
        assert {s.user_of(reply) for reply in replies} == {"alice"}
        assert await s.metric("tokenward_authserver_releases_total") == 1


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
