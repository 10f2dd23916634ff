"""What one source or client does too much of is held back; everybody else is served as before."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from authserver.public.client_ip import Sources
from authserver.public.connection_limits import ConnectionLimits, LimitedRunner
from chassis import http1_probes
from chassis.http1.listener import Listener
from tests.support.deployment import Deployment, Pkce, deployed

HEAD_SECONDS = 0.5
HEALTHY = "/.well-known/jwks.json"


@asynccontextmanager
async def limited(
    folder: Path, connection_limits: ConnectionLimits, *, body_seconds: float = 15.0
) -> AsyncIterator[tuple[Deployment, int, str]]:
    """A deployment, the port of a listener with limits on its connections, and its /healthz."""
    async with deployed(folder) as world, AsyncExitStack() as stack:
        public = LimitedRunner(
            world.server.public(body_seconds), connection_limits, access_log=None
        )
        await public.setup()
        stack.push_async_callback(public.cleanup)
        await web.TCPSite(public, "127.0.0.1", 0).start()
        server = http1_probes.ops_server(world.server.readiness, world.server.registry)
        ops = await Listener("ops", "127.0.0.1", 0, server).bind(drain_seconds=1.0)
        stack.push_async_callback(ops.cleanup)
        yield world, public.addresses[0][1], f"http://127.0.0.1:{ops.port}/healthz"


async def opened(port: int, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What came before the other side closed."""
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""


async def answers(world: Deployment, port: int, health: str) -> None:
    for url in (f"http://127.0.0.1:{port}{HEALTHY}", health):
        assert (await world.call("GET", url)).status == 200


STALLS = {
    "nothing at all": b"",
    "half a request line": b"GET /.well-known/jw",
    "half a head": b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: a\r\nX-Slow: ",
}


@pytest.mark.parametrize("stall", STALLS.values(), ids=STALLS)
async def test_stalled_heads_are_closed_and_others_are_served(tmp_path: Path, stall: bytes) -> None:
    connection_limits = ConnectionLimits(head_seconds=HEAD_SECONDS, max_per_source=None)
    async with limited(tmp_path, connection_limits) as (world, port, health):
        stalled = [await opened(port, stall) for _ in range(200)]
        await answers(world, port, health)
        ends = await asyncio.gather(*(closed(reader) for reader, _ in stalled))
        assert set(ends) == {b""}
        for _, writer in stalled:
            writer.close()


async def test_a_head_that_drips_has_one_deadline_for_all_of_it(tmp_path: Path) -> None:
    connection_limits = ConnectionLimits(head_seconds=HEAD_SECONDS, max_per_source=None)
    async with limited(tmp_path, connection_limits) as (_, port, _):
        reader, writer = await opened(port, b"GET / HTTP/1.1\r\n")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ended = asyncio.ensure_future(closed(reader))
        while not ended.done():
            writer.write(b"X: y\r\n")
            await asyncio.wait([ended], timeout=0.05)
        assert loop.time() - begun < 5 * HEAD_SECONDS
        writer.close()


async def test_a_patient_connection_serves_request_after_request(tmp_path: Path) -> None:
    connection_limits = ConnectionLimits(head_seconds=HEAD_SECONDS, max_per_source=None)
    request = f"GET {HEALTHY} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    async with limited(tmp_path, connection_limits) as (_, port, _):
        reader, writer = await opened(port, b"")
        for _ in range(3):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            await asyncio.sleep(HEAD_SECONDS * 1.5)  # idle between requests is no stalled head
        writer.write(request[:10])
        assert await closed(reader) == b""
        writer.close()


async def test_a_stalled_body_ends_and_others_are_served(tmp_path: Path) -> None:
    head = (
        b"POST /oauth/token HTTP/1.1\r\nHost: a\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ngrant"
    )
    limits = ConnectionLimits(max_per_source=None)
    async with limited(tmp_path, limits, body_seconds=HEAD_SECONDS) as (world, port, health):
        stalled = [await opened(port, head) for _ in range(100)]
        await answers(world, port, health)
        for reader, writer in stalled:
            async with asyncio.timeout(10):
                assert (await reader.readline()).startswith(b"HTTP/1.1 408")
            writer.close()


async def test_a_source_has_only_so_many_connections(tmp_path: Path) -> None:
    connection_limits = ConnectionLimits(max_per_source=5)
    async with limited(tmp_path, connection_limits) as (world, port, health):
        kept = [await opened(port, b"") for _ in range(5)]
        reader, writer = await opened(port, b"")
        assert await closed(reader) == b""
        writer.close()
        assert (await world.call("GET", health)).status == 200
        kept[0][1].close()
        await kept[0][1].wait_closed()
        for _ in range(50):
            await asyncio.sleep(0)
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{port}{HEALTHY}") as answer,
        ):
            assert answer.status == 200, "a closed connection makes room"
        other = socket.socket()
        other.bind(("127.0.0.2", 0))
        other.setblocking(False)
        await asyncio.get_running_loop().sock_connect(other, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=other)
        writer.write(f"GET {HEALTHY} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert (await closed(reader)).startswith(b"HTTP/1.1 200"), "another source is served"
        writer.close()
        for _, writer in kept:
            writer.close()


async def test_all_connections_together_have_a_limit(tmp_path: Path) -> None:
    async with limited(tmp_path, ConnectionLimits(max_per_source=None, max_total=3)) as (
        world,
        port,
        health,
    ):
        kept = [await opened(port, b"") for _ in range(3)]
        reader, writer = await opened(port, b"")
        assert await closed(reader) == b""
        assert (await world.call("GET", health)).status == 200
        for _, one in [*kept, (reader, writer)]:
            one.close()


async def test_sign_ins_of_one_source_are_limited(tmp_path: Path) -> None:
    async with deployed(tmp_path, limits={"signInsPerSourcePerMinute": 3}) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        statuses = [(await world.call("GET", url)).status for _ in range(5)]
        assert statuses == [200] * 3 + [429] * 2
        page = await world.call("GET", url)
        assert page.headers["Content-Type"].startswith("text/html")
        assert (await world.call("GET", HEALTHY)).status == 200
        world.clock.advance(20)
        assert (await world.call("GET", url)).status == 200


async def test_requests_of_one_client_are_limited_and_others_are_served(tmp_path: Path) -> None:
    limits = {"tokenRequestsPerClientAndSourcePerMinute": 3}
    async with deployed(tmp_path, limits=limits) as world:
        busy, other = [(await world.register())["client_id"] for _ in range(2)]
        answers = [await world.refresh(busy, "none") for _ in range(5)]
        assert [answer.status for answer in answers] == [400] * 3 + [429] * 2
        assert answers[-1].json()["error"] == "temporarily_unavailable"
        assert int(answers[-1].headers["Retry-After"]) > 0
        assert (await world.refresh(other, "none")).status == 400


async def test_guesses_at_a_secret_are_limited_and_other_clients_are_served(tmp_path: Path) -> None:
    limits = {"failedAuthenticationsPerSourcePerMinute": 3}
    async with deployed(tmp_path, limits=limits) as world:
        client = await world.register(token_endpoint_auth_method="client_secret_post")
        other = await world.register(token_endpoint_auth_method="client_secret_basic")
        guesses = [
            (await world.refresh(client["client_id"], "none", client_secret=f"guess {n}")).status
            for n in range(5)
        ]
        assert guesses == [401] * 3 + [429] * 2
        basic = aiohttp.encode_basic_auth(other["client_id"], other["client_secret"])
        fields = {"grant_type": "refresh_token", "refresh_token": "none"}
        answer = await world.call(
            "POST", "/oauth/token", data=fields, headers={"Authorization": basic}
        )
        assert answer.status == 400
        world.clock.advance(60)
        right = await world.refresh(
            client["client_id"], "none", client_secret=client["client_secret"]
        )
        assert right.status == 400, "the secret was right; the refresh token is unknown"


async def test_registrations_of_all_sources_together_are_limited(tmp_path: Path) -> None:
    limits = {"registrationsPerSourcePerMinute": 1000, "registrationsPerMinute": 3}
    async with deployed(tmp_path, limits=limits) as world:
        body = {"redirect_uris": ["https://app.example.com/cb"]}
        statuses = [
            (await world.call("POST", "/oauth/register", json=body)).status for _ in range(5)
        ]
        assert statuses == [201] * 2 + [429] * 3, "the third is kept for a newcomer"


def _source(remote: str, forwarded: list[str], *proxies: str, behind_proxy: bool = True) -> str:
    headers = [("X-Forwarded-For", line) for line in forwarded]
    request = make_mocked_request("GET", "/", headers=CIMultiDict(headers)).clone(remote=remote)
    return Sources(proxies, behind_proxy=behind_proxy).of(request)


def test_forwarded_addresses_are_believed_of_listed_proxies_only() -> None:
    proxy = "10.0.0.0/8"
    assert _source("10.0.0.1", ["203.0.113.9"], proxy) == "203.0.113.9"
    assert _source("198.51.100.7", ["203.0.113.9"], proxy) == "198.51.100.7"
    assert _source("10.0.0.1", ["192.0.2.1, 203.0.113.9, 10.2.3.4"], proxy) == "203.0.113.9"
    assert _source("10.0.0.1", ["192.0.2.1", "203.0.113.9"], proxy) == "203.0.113.9"
    assert _source("10.0.0.1", ["not an address"], proxy) == "10.0.0.1"
    assert _source("10.0.0.1", [], proxy) == "10.0.0.1"


def test_an_ipv6_source_is_its_network() -> None:
    source = _source("2001:db8:1:2:3::4", [], behind_proxy=False)
    assert source == "2001:db8:1:2::/64"
    assert _source("::ffff:203.0.113.9", [], behind_proxy=False) == "203.0.113.9"


def test_behind_a_proxy_nobody_listed_all_are_counted_as_one() -> None:
    assert _source("10.0.0.1", ["203.0.113.9"]) == "10.0.0.1"


async def test_behind_an_unlisted_proxy_one_user_does_not_hold_back_the_others(
    tmp_path: Path,
) -> None:
    listeners: dict[str, Any] = {
        "public": {"host": "127.0.0.1", "port": 0, "behindTLSProxy": True},
        "internal": {
            "host": "127.0.0.1",
            "port": 0,
            "certFile": "tls.crt",
            "keyFile": "tls.key",
            "clientCAFile": "workloads.pem",
        },
        "ops": {"host": "127.0.0.1", "port": 0},
    }
    limits = {"registrationsPerSourcePerMinute": 2, "signInsPerSourcePerMinute": 1}
    async with deployed(tmp_path, listeners=listeners, limits=limits) as world:
        for _ in range(4):
            await world.register()
        assert urlsplit(world.issuer).hostname == "127.0.0.1"
