"""A workload's certificate is replaced again and again while its sidecar is busy."""

import asyncio
from pathlib import Path

from tests.drills.pair import pair
from tests.sidecar.rig import Reply

ROTATIONS = 5


async def test_no_call_fails_while_the_certificate_is_replaced(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        jwt = (await p.world.signed_in()).access_token
        unseen, over = iter(p.like(jwt, 10_000)), asyncio.Event()
        replies: list[Reply] = []

        async def keep_asking() -> None:
            while not over.is_set():
                replies.append(await p.ask(next(unseen)))

        asking = asyncio.gather(*(keep_asking() for _ in range(8)))
        for _ in range(ROTATIONS):
            served = len(replies)
            p.rotate()
            await p.sidecar.keep_house()
            await p.until(lambda served=served: len(replies) > served + 30)  # type: ignore[misc]
        over.set()
        await asking
        assert p.sidecar.credential.generation == 1 + ROTATIONS
        assert {p.user_of(reply) for reply in replies} == {"alice"}
        # What belonged to the old certificates is closed: at most one connection per caller.
        await p.until(lambda: p.way.connections <= 8)
