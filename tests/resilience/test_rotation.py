"""A workload's certificate is replaced again and again while its sidecar is busy."""

import asyncio
from pathlib import Path

from tests.resilience.pair import Pair, pair
from tests.sidecar.harness import Reply

CALLERS, ROTATIONS = 8, 5


async def test_no_call_fails_while_the_certificate_is_replaced(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        jwt = (await p.world.signed_in()).access_token
        unseen, over = iter(p.like(jwt, 10_000)), asyncio.Event()
        replies: list[Reply] = []

        async def keep_asking() -> None:
            while not over.is_set():
                replies.append(await p.ask(next(unseen)))

        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(keep_asking())
            for number in range(ROTATIONS):
                await p.until(lambda number=number: len(replies) > 30 * number)  # type: ignore[misc]
                await replace_under_way(p)
            over.set()
        assert p.sidecar.credential.generation == 1 + ROTATIONS
        assert {p.user_of(reply) for reply in replies} == {"alice"}
        assert p.exchanges() == len(replies)  # none was cut off and made again
        # What belonged to the old certificates is closed.
        await p.until(lambda: p.way.connections <= CALLERS)


async def replace_under_way(p: Pair) -> None:
    """Every caller waits for an exchange that has been sent when the new certificate comes."""
    p.way.stall()
    await p.until(lambda: p.under_way() == CALLERS)
    for _ in range(20):
        await asyncio.sleep(0)
    p.rotate()
    await p.sidecar.tick()
    p.way.resume()
