"""Users who signed in at the first build stay signed in: a real process on their database."""

import asyncio
from pathlib import Path

from tests.support.database_file import sql
from tests.support.deployment import Answer
from tests.support.workloads import NOTES_SERVER, TASKS_SERVER
from tests.upgrade.first_build import ROOT, Installation, installation
from tests.upgrade.recording import restore

_RELOAD_SECONDS = 30
_BOUND = "SELECT upstream, authorization_server, registered_client_id FROM connections"


async def released(it: Installation, name: str) -> Answer:
    workload = TASKS_SERVER if name.endswith("tasks") else NOTES_SERVER
    return await it.deployment.exchange(workload, it.users[name].access_token)


async def login_behind(it: Installation, name: str) -> str:
    """Whose upstream token a user's server gets."""
    answer = await released(it, name)
    assert answer.status == 200, (name, answer.text)
    provider = it.hub if name.endswith("tasks") else it.deployment.upstream
    return provider.grants.bearer(answer.json()["access_token"]).user.login


async def reloaded(it: Installation, **upstream: str) -> None:
    """Change the configuration and wait until the process has read it."""
    before = it.log().count('"configuration_reloaded"')
    it.change(**upstream)
    async with asyncio.timeout(_RELOAD_SECONDS):
        while it.log().count('"configuration_reloaded"') == before:
            await asyncio.sleep(0.1)


async def nobody_is_signed_out(it: Installation) -> None:
    """Refresh, release and revocation, for everybody who signed in before."""
    for name in it.users:
        await it.refresh(name)
        assert await login_behind(it, name) == name.split()[0]
    user = it.users["alice at tasks"]
    fields = {"token": user.refresh_token, "client_id": user.client_id}
    world = it.deployment
    assert (await world.call("POST", "/oauth/revoke", data=fields)).status == 200
    refused = await world.refresh(user.client_id, user.refresh_token)
    assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
    async with asyncio.timeout(_RELOAD_SECONDS):
        while not all(grant.dead for grant in it.hub.grants._refresh_tokens.values()):
            await asyncio.sleep(0.02)
    assert await login_behind(it, "alice again") == "alice"


async def a_slip_costs_nobody_a_sign_in(it: Installation) -> None:
    """Right after the upgrade, before anything was refreshed."""
    await reloaded(it, clientId="another")
    for name in ("alice", "bob"):
        user = it.users[name]
        held = await it.deployment.refresh(user.client_id, user.refresh_token)
        assert held.status == 503
    await reloaded(it, clientId="tokenward")
    assert "refresh_failed" not in it.log()
    assert it.deployment.upstream.grants.refused_refreshes == 0
    for name in ("alice", "bob"):
        await it.refresh(name)
        assert await login_behind(it, name) == name


async def test_nobody_who_signed_in_at_the_first_build_is_signed_out(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        restore(it)
        await it.start(ROOT)
        await nobody_is_signed_out(it)


async def test_a_slip_in_the_client_id_right_after_the_upgrade_costs_nobody_a_sign_in(
    tmp_path: Path,
) -> None:
    async with installation(tmp_path) as it:
        restore(it)
        await it.start(ROOT)
        await a_slip_costs_nobody_a_sign_in(it)


async def test_the_first_start_binds_what_is_stored_and_leaves_it_sealed_as_it_is(
    tmp_path: Path,
) -> None:
    """So that a replica of the first build still opens it during a rolling upgrade."""
    async with installation(tmp_path) as it:
        restore(it)
        sealed = "SELECT user_id, sealed_tokens FROM connections ORDER BY user_id"
        before = await sql(tmp_path, sealed)
        await it.start(ROOT)
        acme, hub = it.deployment.upstream.issuer, it.hub.issuer
        assert sorted(await sql(tmp_path, _BOUND)) == [
            ("acme", acme, "tokenward"),
            ("acme", acme, "tokenward"),
            ("hub", f"{hub}/token", "tokenward"),
        ]
        assert await sql(tmp_path, sealed) == before


async def test_what_another_issuer_gave_is_bound_to_nobody(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        restore(it)
        it.change(issuer=it.hub.issuer)
        await it.start(ROOT)
        assert (
            sorted(await sql(tmp_path, f"{_BOUND} WHERE upstream = 'acme'"))
            == [("acme", None, None)] * 2
        )
        user = it.users["alice"]
        held = await it.deployment.refresh(user.client_id, user.refresh_token)
        assert held.status == 503


async def test_where_a_former_client_had_the_same_issuer_nobody_is_bound_by_guess(
    tmp_path: Path,
) -> None:
    async with installation(tmp_path) as it:
        restore(it)
        it.change(former=[{"clientId": "former", "until": "2099-01-01T00:00:00Z"}])
        await it.start(ROOT)
        bound = await sql(tmp_path, f"{_BOUND} WHERE authorization_server IS NOT NULL")
        assert [row[0] for row in bound] == ["hub"]
