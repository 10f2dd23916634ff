"""An app that others reach past the gateway closes the gateway (amendment 18)."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.gateway.app_port import AppPortCheck, own_addresses
from tests.fakes.clock import ManualClock
from tests.sidecar.gateway.harness import gated
from tests.sidecar.harness import JWT, Authorities

OTHER = next(iter(sorted(own_addresses())), None)
needs_an_address = pytest.mark.skipif(
    OTHER is None or OTHER.startswith("127."), reason="this machine has no address but loopback"
)


def made(port: int, *addresses: str) -> tuple[AppPortCheck, ManualClock]:
    clock = ManualClock()
    return AppPortCheck(port, now=clock, addresses=lambda: addresses), clock


async def _ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@needs_an_address
async def test_an_app_on_every_address_is_open_and_one_on_loopback_is_not() -> None:
    assert OTHER is not None
    family = socket.AF_INET6 if ":" in OTHER else socket.AF_INET
    async with await asyncio.start_server(_ignore, "127.0.0.1", 0) as closed:
        check, _ = made(closed.sockets[0].getsockname()[1], OTHER)
        await check.run()
        assert not check.open
    async with await asyncio.start_server(_ignore, None, 0, family=family) as opened:
        check, clock = made(opened.sockets[0].getsockname()[1], OTHER)
        await check.run()
        assert check.open
    check.poll()
    assert check.open  # not before half a minute is over
    clock.now += 31
    check.poll()
    assert check._running is not None
    await check._running
    assert not check.open


async def test_loopback_is_nobody_elses_way_in() -> None:
    async with await asyncio.start_server(_ignore, "127.0.0.1", 0) as server:
        check, _ = made(server.sockets[0].getsockname()[1], "127.0.0.1", "::1", "::ffff:127.0.0.1")
        check.reached_at("127.0.0.1")
        check.reached_at("no address")
        await check.run()
        assert not check.open


@needs_an_address
async def test_an_address_at_which_the_gateway_was_reached_is_tried_too() -> None:
    assert OTHER is not None
    family = socket.AF_INET6 if ":" in OTHER else socket.AF_INET
    async with await asyncio.start_server(_ignore, None, 0, family=family) as server:
        check, _ = made(server.sockets[0].getsockname()[1])
        await check.run()
        assert not check.open
        check.reached_at(OTHER)
        await check.run()
        assert check.open


async def test_nothing_is_forwarded_while_the_apps_port_is_open(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, {"GATEWAY_OPEN_PATHS": "/healthz"}) as g:
        check, _ = made(g.app.port)
        g.parts.gateway._collaborators = replace(g.parts.gateway._collaborators, app_port=check)
        assert (await g.call()).status == 200
        check.open = True
        # With a token in memory, with one that has to be asked for, and without any.
        for path, jwt in (("/mcp", JWT), ("/mcp", "a.b.c"), ("/healthz", None)):
            reply = await g.call(path, method="GET", jwt=jwt)
            assert (reply.status, reply.json["error"]) == (503, "app_port_open")
        assert len(g.app.requests) == 1
        document = await g.call("/.well-known/oauth-protected-resource", method="GET", jwt=None)
        assert document.status == 200


async def test_the_first_request_waits_for_the_first_check(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities) as g:
        check, _ = made(g.app.port)
        g.parts.gateway._collaborators = replace(g.parts.gateway._collaborators, app_port=check)
        assert check.never_ran
        assert (await g.call()).status == 200
        assert not check.never_ran
