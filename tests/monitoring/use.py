"""What people, clients and the cluster do all the time; each part runs until it is cancelled."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from itertools import count

import yaml

from demo.pki import write_private
from tests.monitoring.scene import World, expired

_LEVELS = ("info", "warning")


def uses(world: World) -> tuple[Coroutine[None, None, None], ...]:
    return (
        _calls(world),
        _strangers(world),
        _people(world),
        _changes(world),
        world.controller.work(),
        world.api_server.work(),
    )


async def _calls(world: World) -> None:
    """Every user calls every server through whichever door it has."""
    while True:
        for (name, _), jwt in list(world.jwts.items()):
            if world.server(name).app_port is None:
                await world.ask_sidecar(name, jwt)
                await world.attach(name, jwt)
            else:
                await world.through_gateway(name, jwt)
        await asyncio.sleep(0.1)


async def _strangers(world: World) -> None:
    """Somebody tries JWTs that are over, and some that nobody signed."""
    while True:
        jwt = world.jwts["notes", "alice"]
        await world.ask_sidecar("notes", expired(jwt))
        await world.exchange(world.server("notes").credential, f"{jwt}x")
        await asyncio.sleep(0.5)


async def _people(world: World) -> None:
    """Somebody signs in with a new client, and takes the old one's access away."""
    while True:
        for user in ("alice", "bob"):
            old = world.jwts["other", user]
            with suppress(Exception):  # while a drill has the upstream or us out of order
                await world.sign_in("other", user)
                await world.revoke(old)
            await asyncio.sleep(1.5)


async def _changes(world: World) -> None:
    """Now and then a configuration is changed, and a certificate is renewed."""
    for turn in count():
        await asyncio.sleep(10)
        level = _LEVELS[turn % 2]
        for file in (world.layout.config, world.folder / "webhook.yaml"):
            members = yaml.safe_load(file.read_text())
            if "surprise" not in members:  # else a drill has put it there
                write_private(file, yaml.safe_dump(members | {"logLevel": level}).encode())
        world.certify_sidecar("other")
