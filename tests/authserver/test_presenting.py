"""Promise 2 and 3 where time, outages and an upstream's promises come in."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from authserver.refreshing import _ahead
from authserver.storage.connections import LeftBehind
from authserver.storage.database import Database, StorageDown
from authserver.storage.records import Connection, ConnectionKey, UpstreamTokens
from chassis.spiffe_id import Workload
from tests.authserver.test_refreshing import EXPIRED, MUST_SIGN_IN, UNAVAILABLE, Rig, rig
from tests.authserver.tokens import claims_of
from tests.authserver.workloads import verdict
from tests.fakes.upstream import hanging_up, saying


async def settled(rigged: Rig) -> None:
    await rigged.world.server.settle()


async def connection_of(rigged: Rig) -> Connection:
    session = claims_of(rigged.user.access_token)["tsid"]
    holding = await rigged.world.server._connections.of_session(session, "acme")
    assert holding is not None
    assert holding.connection is not None
    return holding.connection


async def test_a_token_is_renewed_ahead_of_its_end_while_nobody_waits(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        moment = int(100 - _ahead(await connection_of(rigged)))
        assert 70 <= moment < 80
        rigged.world.clock.advance(moment)
        assert await rigged.token() == "access-1"
        await settled(rigged)
        assert rigged.upstream.presented == []
        rigged.world.clock.advance(1)
        assert (await rigged.exchange()).status == 200
        await settled(rigged)
        assert await rigged.token() == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


def test_tokens_of_one_moment_are_not_all_renewed_in_one_moment() -> None:
    tokens = UpstreamTokens("a", "r", None, obtained_at=0, expires_at=1000)
    ahead = {
        _ahead(Connection(ConnectionKey(f"u{n}", Workload("ns", "s"), "acme"), 1, "i", "s", tokens))
        for n in range(50)
    }
    assert len(ahead) == 50
    assert 60 <= min(ahead) < 70
    assert 80 < max(ahead) <= 90


async def test_nobody_sets_out_to_renew_what_cannot_be_renewed(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        connections, found = rigged.world.server._connections, await connection_of(rigged)
        assert await connections.claim(found, "c", 0, LeftBehind())
        assert await connections.swap(found, "c", replace(found.tokens, refresh_token=None))
        rigged.world.clock.advance(79)
        assert await rigged.token() == "access-1"
        rigged.world.clock.advance(21)
        assert verdict(await rigged.exchange()) == MUST_SIGN_IN
        await settled(rigged)
        assert await rigged.sql("SELECT refresh_claim FROM connections") == [(None,)]


async def test_a_grace_for_reuse_lets_a_refresh_that_broke_off_be_tried_again(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as rigged:
        _promise_grace(rigged, 300)
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(hanging_up)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert await rigged.token() == "access-3"
        assert rigged.upstream.presented == ["refresh-1", "refresh-1"]


async def test_after_the_grace_a_refresh_that_broke_off_is_given_up(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        _promise_grace(rigged, 300)
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(hanging_up)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        rigged.world.clock.advance(300)
        assert verdict(await rigged.exchange()) == MUST_SIGN_IN
        assert rigged.upstream.presented == ["refresh-1"]


async def test_a_gateway_that_waited_in_vain_is_an_unknown_outcome(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(saying(504, {}))
        rigged.world.clock.advance(0)
        await rigged.exchange()
        assert verdict(await rigged.exchange()) == MUST_SIGN_IN
        assert rigged.upstream.presented == ["refresh-1"]


async def test_an_upstream_in_trouble_is_left_alone_for_longer_and_longer(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(*[saying(503, {})] * 50)
        for _ in range(20):
            assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert len(rigged.upstream.presented) == 2
        for _ in range(60):
            rigged.world.clock.advance(1)
            assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert 5 <= len(rigged.upstream.presented) <= 12


class CommitsInSilence:
    """A database that does what it is asked, and whose answer to one claim is lost."""

    def __init__(self, database: Database) -> None:
        self._database, self.lost = database, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, sql: str, *arguments: object) -> int:
        changed = await self._database.write(sql, *arguments)
        if "first_claimed_at = COALESCE" in sql and not self.lost:
            self.lost += 1
            raise StorageDown("the connection broke")
        return changed


async def test_a_claim_whose_answer_was_lost_costs_no_connection(tmp_path: Path) -> None:
    """Nobody has presented anything under it, and only this process knows."""
    async with rig(tmp_path) as rigged:
        connections = rigged.world.server._connections
        silent = CommitsInSilence(connections._database)
        connections._database = silent
        rigged.world.clock.advance(EXPIRED)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert silent.lost == 1
        await settled(rigged)
        assert await rigged.sql("SELECT refresh_claim FROM connections") == [(None,)]
        assert await rigged.token() == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


async def test_a_result_outlasts_an_outage_of_the_database(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        async with rigged.refusing("sealed_tokens"):
            call = asyncio.create_task(rigged.exchange())
            await rigged.upstream.until_presented(1)
            await asyncio.sleep(1)
        assert (await call).status == 200
        assert rigged.upstream.presented == ["refresh-1"]


def _promise_grace(rigged: Rig, seconds: int) -> None:
    for upstream in rigged.world.server._upstreams.values():
        upstream.reuse_grace_seconds = seconds  # type: ignore[misc]
