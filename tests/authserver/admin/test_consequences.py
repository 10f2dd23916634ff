"""What `--check` says of a configuration without faults, and that it changes nothing."""

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from authserver.__main__ import _check
from demo.pki import CertificateAuthority
from tests.authserver.storage.conftest import place, postgresql  # noqa: F401 - fixtures
from tests.support.database_file import dump, sql
from tests.support.deployment import Deployment, configuration_of, deployed, write_material
from tests.support.storage_fixtures import KEY, Place, Store, grant
from tests.support.workloads import reconfigure


async def check(folder: Path) -> list[str]:
    """The lines of a check without faults."""
    printed, complaints = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
        code = await asyncio.to_thread(_check, folder / "authserver.yaml", "text", None)
    assert (code, complaints.getvalue()) == (0, "")
    return printed.getvalue().splitlines()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Deployment]:
    """Alice has two clients, Bob one."""
    async with deployed(tmp_path) as world:
        for user in ("alice", "alice", "bob"):
            await world.signed_in(user)
        yield world


def change(world: Deployment, **members: object) -> None:
    raw = yaml.safe_load((world.folder / "authserver.yaml").read_text())
    reconfigure(world, upstreams=[raw["upstreams"][0] | members])


async def test_the_redirect_uri_of_each_upstream_is_said(world: Deployment) -> None:
    raw = yaml.safe_load((world.folder / "authserver.yaml").read_text())
    acme = raw["upstreams"][0]
    reconfigure(world, upstreams=[acme, acme | {"name": "acme-2"}])
    uris = [
        f"upstreams[{name}]: the redirect URI to register there is"
        f" {world.issuer}/oauth/callback/{name}"
        for name in ("acme", "acme-2")
    ]
    assert (await check(world.folder))[1:] == uris
    # It is the one that sign-ins use.
    assert world.upstream.redirect_uri == f"{world.issuer}/oauth/callback/acme"


async def test_what_is_allowed_and_hardly_meant_is_warned_about(tmp_path: Path) -> None:
    write_material(tmp_path, *map(CertificateAuthority.create, ("servers", "workloads")))
    raw: Any = configuration_of(tmp_path, "http://127.0.0.1:1", "https://another.example.com")
    raw["allowedWorkloads"]["names"] = ["tasks", "nots"]
    raw["lifetimes"] = {"refreshTokenIdle": "91d"}
    for name in ("public", "ops"):
        raw["listeners"][name]["port"] = 9090
    (tmp_path / "authserver.yaml").write_text(yaml.safe_dump(raw))
    warnings = [line for line in await check(tmp_path) if line.startswith("warning: ")]
    assert [line.split(": ")[1] for line in warnings] == [
        "resources[0].workload",
        "listeners",
        "lifetimes.refreshTokenIdle",
    ]
    assert "mcp-servers/notes is not in allowedWorkloads" in warnings[0]
    assert "9090" in warnings[1]


async def test_a_change_of_client_says_how_many_users_it_signs_out(world: Deployment) -> None:
    before = await dump(world.folder)
    assert "must sign in again" not in "".join(await check(world.folder))
    change(world, clientId="another")
    (line,) = (await check(world.folder))[2:]
    assert line.startswith("upstreams[acme]: 2 user(s) must sign in again:")
    assert f"client tokenward of {world.upstream.issuer}" in line
    assert await dump(world.folder) == before

    former = {"clientId": "tokenward", "until": "2099-01-01T00:00:00Z"}
    change(world, former=[former])
    assert len(await check(world.folder)) == 2
    change(world, former=[former | {"until": "2020-01-01T00:00:00Z"}])
    assert len(await check(world.folder)) == 3


async def test_users_of_an_upstream_that_is_gone_are_counted(world: Deployment) -> None:
    raw = yaml.safe_load((world.folder / "authserver.yaml").read_text())
    reconfigure(
        world,
        upstreams=[raw["upstreams"][0] | {"name": "acne"}],
        resources=[one | {"upstreams": ["acne"]} for one in raw["resources"]],
    )
    (line,) = (await check(world.folder))[2:]
    assert line.startswith("upstreams[acme]: 2 user(s) must sign in again:")


async def test_users_of_rows_stored_before_registrations_are_counted(world: Deployment) -> None:
    await sql(
        world.folder,
        "UPDATE connections SET authorization_server = NULL, registered_client_id = NULL",
    )
    assert len(await check(world.folder)) == 2
    change(world, issuer="https://another.example.com")
    (line,) = (await check(world.folder))[2:]
    assert line.startswith("upstreams[acme]: 2 user(s) must sign in again:")


async def test_who_has_no_live_session_is_not_counted(world: Deployment) -> None:
    await sql(world.folder, "UPDATE sessions SET ended_at = 1")
    change(world, clientId="another")
    (line,) = (await check(world.folder))[2:]
    assert line.startswith("upstreams[acme]: 0 user(s)")


async def test_an_older_database_is_not_migrated(world: Deployment) -> None:
    await sql(world.folder, "UPDATE schema_version SET version = 5")
    before = await dump(world.folder)
    (line,) = (await check(world.folder))[2:]
    assert re.search(r"users were not counted: .*it has schema version 5; .* needs \d+$", line)
    assert await dump(world.folder) == before


async def test_any_engine_can_be_asked(place: Place, tmp_path: Path) -> None:  # noqa: F811
    """On PostgreSQL, and on SQLite, without a database and with one."""
    write_material(tmp_path, *map(CertificateAuthority.create, ("servers", "workloads")))
    storage = {"url": place.url}
    if place.password_file is not None:
        storage["passwordFile"] = str(place.password_file)
    raw = configuration_of(tmp_path, "http://127.0.0.1:1", "https://another.example.com")
    (tmp_path / "authserver.yaml").write_text(yaml.safe_dump(raw | {"storage": storage}))
    (line,) = (await check(tmp_path))[2:]
    assert "users were not counted" in line

    database = await place.open()
    await Store(database, KEY).sign_in(grant(), expires_at=2**40)
    await database.close()
    (line,) = (await check(tmp_path))[2:]
    assert line.startswith("upstreams[acme]: 1 user(s) must sign in again:")
