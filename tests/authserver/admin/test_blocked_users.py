"""A blocked user at the authserver's doors: nothing of theirs works, and it is nobody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from authserver.storage.engines.open import open_database
from authserver.storage.users import set_blocked
from demo.browser import Browser
from tests.support.database_file import sql
from tests.support.deployment import (
    CALLBACK,
    Deployment,
    Pkce,
    SignedIn,
    deployed,
    walk,
)
from tests.support.workloads import NOTES_SERVER, audited


async def block(world: Deployment, user: SignedIn, *, since: int | None = 1) -> None:
    """As `tokenward users block` does, in another process."""
    rows = await sql(
        world.folder, "SELECT user_id FROM sessions WHERE client_id = ?", user.client_id
    )
    database = await open_database(f"sqlite://{world.folder}/tokenward.db")
    async with database.transaction() as transaction:
        assert await set_blocked(transaction, rows[0][0], since)
    await database.close()


@asynccontextmanager
async def blocked_alice(folder: Path) -> AsyncIterator[tuple[Deployment, SignedIn]]:
    async with deployed(folder) as world:
        alice = await world.signed_in("alice")
        await block(world, alice)
        yield world, alice


async def test_no_token_is_released(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with blocked_alice(tmp_path) as (world, alice):
        with audited(caplog) as trail:
            answer = await world.exchange(NOTES_SERVER, alice.access_token)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_grant")
        assert trail.reason == "user_blocked"
        bob = await world.signed_in("bob")
        assert (await world.exchange(NOTES_SERVER, bob.access_token)).status == 200


async def test_no_refresh_token_is_taken_and_none_is_used_up(tmp_path: Path) -> None:
    async with blocked_alice(tmp_path) as (world, alice):
        refused = await world.refresh(alice.client_id, alice.refresh_token)
        assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
        await block(world, alice, since=None)
        assert (await world.refresh(alice.client_id, alice.refresh_token)).status == 200


async def test_no_code_is_redeemed(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        client_id, pkce = (await world.register())["client_id"], Pkce()
        code = await world.code(client_id, pkce, "alice")
        await block(world, alice)
        refused = await world.redeem(client_id, code, pkce)
        assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")


async def test_a_new_sign_in_is_refused_and_stores_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with blocked_alice(tmp_path) as (world, _):
        before = await sql(tmp_path, "SELECT generation FROM connections")
        client_id, pkce = (await world.register())["client_id"], Pkce()
        with audited(caplog) as trail:
            async with Browser(leave_at=CALLBACK) as browser:
                answer = await walk(browser, world.authorize_url(client_id, pkce), "alice")
        assert answer["error"] == "access_denied"
        assert "code" not in answer
        assert trail.events[-1]["reason"] == "user_blocked"
        assert await sql(tmp_path, "SELECT generation FROM connections") == before
        assert len(await sql(tmp_path, "SELECT 1 FROM sessions")) == 1


async def test_a_signed_in_browser_does_not_help(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        first = await walk(browser, world.authorize_url(client_id, pkce), "alice")
        assert "code" in first
        redeemed = await world.redeem(client_id, first["code"], pkce)
        await block(world, SignedIn(client_id, **redeemed.json()))
        answer = await walk(browser, world.authorize_url(client_id, pkce), "alice")
        assert answer["error"] == "access_denied"


async def test_introspection_and_userinfo_know_the_user_no_more(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="openid mcp")
        headers = {"Authorization": f"Bearer {alice.access_token}"}
        assert (await world.call("GET", "/oauth/userinfo", headers=headers)).status == 200
        await block(world, alice)
        assert (await world.call("GET", "/oauth/userinfo", headers=headers)).status == 401


async def test_a_lifted_block_leaves_nothing_behind(tmp_path: Path) -> None:
    async with blocked_alice(tmp_path) as (world, alice):
        await block(world, alice, since=None)
        assert (await world.exchange(NOTES_SERVER, alice.access_token)).status == 200
        assert (await world.signed_in("alice")).access_token
