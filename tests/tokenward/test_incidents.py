"""The commands of the how-to for incidents run, one section after the other."""

import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from tests.support.database_file import sql
from tests.support.deployment import Deployment, deployed
from tests.support.workloads import NOTES_SERVER
from tests.tokenward.running import on

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/handle-incidents.md").read_text("utf-8")


SPARES_BOB = ("A laptop is stolen, or a person leaves", "A client application is malicious")


def blocks() -> dict[str, list[str]]:
    """The commands of each section."""
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        commands = re.findall(r"```tokenward\n(.+?)```", section, re.DOTALL)
        if commands:
            found[section.splitlines()[0]] = "".join(commands).splitlines()
    return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with deployed(tmp_path) as world:
        raw = yaml.safe_load((tmp_path / "authserver.yaml").read_text())
        acme = raw["upstreams"][0] | {"scopes": ["openid", "profile"]}
        await world.reconfigure(upstreams=[acme])
        for name in ("k1", "signing.pem", "upstream-secret", "tls.key", "tokenward.db"):
            (tmp_path / name).chmod(0o600)
        yield world


def test_the_page_has_commands_for_each_case() -> None:
    assert len(blocks()) >= 6


@pytest.mark.parametrize("section", blocks())
async def test_the_commands_of_a_section_do_what_it_says(world: Deployment, section: str) -> None:
    alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
    for command in blocks()[section]:
        command = command.replace("CLIENT_ID", alice.client_id)
        ran = await on(world, *shlex.split(command)[1:])
        assert (ran.code, ran.err) == (0, ""), command
    ends = any(" list" not in line and "doctor" not in line for line in blocks()[section])
    status = (await world.exchange(NOTES_SERVER, alice.access_token)).status
    assert status == (400 if ends else 200)
    if section in SPARES_BOB:
        assert (await world.exchange(NOTES_SERVER, bob.access_token)).status == 200
    events = await sql(world.folder, "SELECT 1 FROM operator_events")
    acting = [line for line in blocks()[section] if "--reason" in line]
    assert len(events) == len(acting)
