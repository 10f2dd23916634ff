"""The authserver dies under a busy sidecar and comes back; both are processes of their own."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.drills.answers import is_an_outage
from tests.drills.processes import USERS, Stack, stack
from tests.sidecar.rig import Reply

MISSING = 4  # callers at a time, per user


@dataclass
class Seen:
    """Answers by user, in the order they came."""

    hits: list[tuple[str, Reply]] = field(default_factory=list)
    misses: list[tuple[str, Reply]] = field(default_factory=list)

    def outages(self) -> int:
        return sum(is_an_outage(reply) for _, reply in self.misses)


async def test_a_killed_authserver_costs_misses_a_503_and_nobody_a_token(tmp_path: Path) -> None:
    async with stack(tmp_path) as s:
        for user in USERS:
            assert s.user_of(await s.ask(s.jwts[user])) == user
        seen, over = Seen(), asyncio.Event()
        load = asyncio.gather(
            *(_keep_hitting(s, user, seen, over) for user in USERS),
            *(_keep_missing(s, user, seen, over) for user in USERS * MISSING),
        )
        await _until(lambda: len(seen.misses) >= 100 and len(seen.hits) >= 20)
        await s.authserver.end()
        hits = len(seen.hits)
        await _until(lambda: seen.outages() >= 100 and len(seen.hits) >= hits + 20)
        await s.authserver.start()
        await s.ready(s.authserver, s.layout.ops)
        misses = len(seen.misses)
        await _until(lambda: len(seen.misses) >= misses + 100)
        over.set()
        await load
        for user, reply in seen.hits:
            assert s.user_of(reply) == user
        for user, reply in seen.misses:
            assert is_an_outage(reply) or s.user_of(reply) == user
        for user in USERS:
            assert s.user_of(await s.ask(s.minters[user]())) == user
        assert s.sidecar.running


async def _keep_hitting(s: Stack, user: str, seen: Seen, over: asyncio.Event) -> None:
    while not over.is_set():
        seen.hits.append((user, await s.ask(s.jwts[user])))
        await asyncio.sleep(0.005)


async def _keep_missing(s: Stack, user: str, seen: Seen, over: asyncio.Event) -> None:
    while not over.is_set():
        seen.misses.append((user, await s.ask(s.minters[user]())))
        await asyncio.sleep(0.005)


async def test_500_misses_at_once_are_one_release(tmp_path: Path) -> None:
    async with stack(tmp_path) as s:
        jwt = s.minters["alice"]()
        replies = await asyncio.gather(*(s.ask(jwt) for _ in range(500)))
        assert {s.user_of(reply) for reply in replies} == {"alice"}
        assert await s.metric("tokenward_authserver_releases_total") == 1


async def _until(condition: Callable[[], bool]) -> None:
    """The test's time limit is the limit."""
    while not condition():
        await asyncio.sleep(0.005)
