"""The network between sidecar and authserver stalls: nothing is refused, nothing gets through."""

import asyncio
from pathlib import Path

from sidecar.timeouts import Timeouts
from tests.resilience.answers import is_an_outage
from tests.resilience.pair import Pair, pair
from tests.sidecar.harness import Reply

# In the proportions of the real ones, so that a stall of half a minute is over at once.
SHORT = Timeouts(exchange=0.25, wait=0.3)


async def test_a_stall_costs_misses_their_deadline_and_hits_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path, timeouts=SHORT) as p:
        jwt = (await p.world.signed_in()).access_token
        assert p.user_of(await p.ask(jwt)) == "alice"
        p.way.stall()
        for replies in (await during_the_stall(p, jwt), await during_the_stall(p, jwt)):
            waiters, hits = replies
            assert all(map(is_an_outage, waiters))
            assert {p.user_of(hit) for hit in hits} == {"alice"}
        p.way.resume()
        for fresh in p.like(jwt, 3):
            assert p.user_of(await p.ask(fresh)) == "alice"


async def during_the_stall(p: Pair, jwt: str) -> tuple[list[Reply], list[Reply]]:
    """More misses than the sidecar has connections, some of them for one JWT; hits beside them."""
    fresh = p.like(jwt, 40)
    waiting = asyncio.create_task(p.ask_at_once(*fresh, *[fresh[0]] * 10))
    hits = []
    while not waiting.done():
        hits.append(await p.ask(jwt))
    p.clock.advance(15)
    assert len(hits) > 1
    return await waiting, hits


async def test_whoever_waits_for_an_exchange_that_takes_too_long_is_told_so(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path, timeouts=Timeouts(exchange=20, wait=0.05)) as p:
        jwt = (await p.world.signed_in()).access_token
        p.way.stall()
        assert all(map(is_an_outage, await p.ask_at_once(*[jwt] * 5)))
        p.way.resume()
        await p.until(lambda: p.sidecar.broker.entries == 1)
        assert p.user_of(await p.ask(jwt)) == "alice"
        assert p.exchanges() == 1


async def test_a_stall_leaves_no_connection_and_no_task_behind(tmp_path: Path) -> None:
    async with pair(tmp_path, timeouts=SHORT) as p:
        jwt = (await p.world.signed_in()).access_token
        await p.ask(jwt)
        before = len(asyncio.all_tasks())
        p.way.stall()
        await during_the_stall(p, jwt)
        assert p.way.connections > 10
        # An exchange outlives those who wait for it, and would end on a connection that is kept.
        await p.until(lambda: not p.sidecar.broker._flights)
        p.way.resume()
        for fresh in p.like(jwt, 3):
            await p.ask(fresh)
        await p.until(lambda: p.way.connections <= 1)
        await p.http.close()
        await p.until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_stall_longer_than_a_token_may_be_kept_serves_nothing_stale(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path, timeouts=SHORT) as p:
        jwt = (await p.world.signed_in()).access_token
        await p.ask(jwt)
        p.way.stall()
        p.clock.advance(59.9)
        assert p.user_of(await p.ask(jwt)) == "alice"
        p.clock.advance(0.1)
        assert is_an_outage(await p.ask(jwt))
        p.way.resume()
        assert p.user_of(await p.ask(jwt)) == "alice"
