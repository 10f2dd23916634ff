"""`doctor` finds what was put wrong, names the remedy, and says nothing of a sound deployment."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.database_file import dump
from tests.support.deployment import Deployment, Pkce, deployed
from tests.support.sign_in_steps import ask, consent, query_of
from tests.tokenward.running import on, run
from tests.tokenward.seeds import PAIRS, SEEDS, Misconfiguration

BY_NAME = {one.name: one for one in SEEDS}
SECRETS = ("k1", "signing.pem", "upstream-secret", "tls.key", "tokenward.db")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Deployment]:
    """Sound, with three users; the files as a careful operator has them."""
    async with deployed(tmp_path) as world:
        for name in SECRETS:
            (tmp_path / name).chmod(0o600)
        for user in ("alice", "bob"):
            await world.signed_in(user)
        await world.signed_in("alice", resource="https://tasks.example.com/mcp")
        yield world


async def problems(world: Deployment) -> list[dict[str, Any]]:
    ran = await on(world, "doctor", "--output", "json")
    found: list[dict[str, Any]] = ran.json["problems"]
    assert ran.code == (1 if found else 0)
    assert ran.err == ""
    return found


def check_found(found: list[dict[str, Any]], wrong: Misconfiguration) -> None:
    matching = [one for one in found if one["check"] == wrong.check]
    assert matching, found
    assert any(wrong.remedy in one["remedy"] for one in matching), matching
    assert all(one["place"] and one["problem"] for one in matching)


def test_there_are_enough_of_them() -> None:
    assert len(SEEDS) >= 25
    assert len({one.name for one in SEEDS}) == len(SEEDS)
    assert len({name for pair in PAIRS for name in pair}) >= 10


async def test_a_sound_deployment_has_no_problems(world: Deployment) -> None:
    ran = await on(world, "doctor")
    assert (ran.code, ran.out.splitlines()[0], ran.err) == (0, "no problems found", "")


async def test_it_says_which_redirect_uri_each_upstream_must_know(world: Deployment) -> None:
    """The very one that a sign-in sends."""
    client_id = (await world.register())["client_id"]
    asked = await ask(world, world.authorize_url(client_id, Pkce()))
    sent = query_of((await consent(world, asked)).headers["Location"])["redirect_uri"]
    ran = await on(world, "doctor")
    assert ran.out.splitlines()[1:] == [
        "compare with each provider's console:",
        f"  acme: client tokenward, redirect URI {sent}",
    ]
    members = (await on(world, "doctor", "--output", "json")).json
    assert members["redirect_uris"] == [
        {"upstream": "acme", "client_id": "tokenward", "redirect_uri": sent}
    ]


async def test_nobody_signs_in_where_tokens_are_made_by_an_exchange(world: Deployment) -> None:
    [acme] = yaml.safe_load((world.folder / "authserver.yaml").read_text())["upstreams"]
    entry = {"name": "orders", "exchange": {"upstream": "acme", "audience": "orders"}}
    await world.reconfigure(upstreams=[acme, entry])
    members = (await on(world, "doctor", "--output", "json")).json
    assert [one["upstream"] for one in members["redirect_uris"]] == ["acme"]


@pytest.mark.parametrize("wrong", SEEDS, ids=lambda wrong: wrong.name.replace(" ", "-"))
async def test_it_finds(world: Deployment, wrong: Misconfiguration) -> None:
    await wrong.seed(world)
    check_found(await problems(world), wrong)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].replace(" ", "-"))
async def test_it_finds_both(world: Deployment, pair: tuple[str, str]) -> None:
    wrongs = [BY_NAME[name] for name in pair]
    for wrong in wrongs:
        await wrong.seed(world)
    found = await problems(world)
    for wrong in wrongs:
        check_found(found, wrong)


async def test_it_changes_nothing_and_shows_no_secret(world: Deployment) -> None:
    before = await dump(world.folder)
    (world.folder / "k1").chmod(0o644)
    said = json.dumps(await problems(world))
    assert await dump(world.folder) == before
    for name in ("k1", "upstream-secret"):
        assert (world.folder / name).read_text().strip() not in said


async def test_offline_it_asks_nobody(world: Deployment) -> None:
    await BY_NAME["issuer unreachable"].seed(world)
    ran = await on(world, "doctor", "--offline")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "no problems found")


async def test_people_read_problem_and_remedy(world: Deployment) -> None:
    await BY_NAME["connections dead"].seed(world)
    told = (await on(world, "doctor")).out.splitlines()
    assert told[0] == "upstreams[acme]: 3 of 3 connections are dead"
    assert told[1].startswith("  remedy: look at the audit trail")


async def test_a_configuration_that_is_not_there_is_named_with_config(tmp_path: Path) -> None:
    ran = await run("doctor", "--config", tmp_path / "none.yaml")
    assert ran.code == 1
    assert ran.out.splitlines() == [
        f"{tmp_path}/none.yaml: no such file or directory",
        "  remedy: run this where the authserver runs, or name its configuration with --config",
    ]


async def test_a_database_that_is_not_there_is_told_once(world: Deployment) -> None:
    (world.folder / "other.yaml").write_text(
        (world.folder / "authserver.yaml").read_text().replace("tokenward.db", "none.db")
    )
    ran = await run("doctor", "--offline", "--config", world.folder / "other.yaml")
    [told] = [line for line in ran.out.splitlines() if line.startswith("storage: ")]
    assert told.count("storage") == 1
    assert told.endswith("it does not exist yet")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("certificate expired", "has expired, less than two hours ago"),
        ("certificate ends soon", "less than a tenth of its life left, 5 days"),
    ],
)
async def test_the_days_of_a_certificate_are_told(world: Deployment, name: str, words: str) -> None:
    await BY_NAME[name].seed(world)
    assert words in (await on(world, "doctor")).out
