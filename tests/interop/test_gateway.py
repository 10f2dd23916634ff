"""MCP servers that know nothing of OAuth, behind the gateway, with clients that people use.

One server is from PyPI and one from npm, both pinned. Clients go from the first 401 to a tool call.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from demo.layout import Layout, plan
from demo.material import write_material
from demo.processes import Processes
from demo.stack import start_sidecar, start_upstream
from tests.interop.driving import client_process
from tests.interop.sessions import Session
from tests.interop.unmodified import SERVERS, TOOLS, unmodified_server
from tests.sidecar.gateway.app import RawApp
from tests.sidecar.gateway.harness import Gated, by_user, serving, users
from tests.sidecar.harness import Authorities, harness

pytestmark = [pytest.mark.timeout(400), pytest.mark.interop]

CLIENTS = ("official_2", "typescript_2", "fastmcp")
JWT = users("alice", "bob")


@asynccontextmanager
async def _stack(folder: Path) -> AsyncIterator[Layout]:
    """Everything real but the server: it comes from a registry."""
    layout = plan(folder, (), behind_gateways=("plain",))
    write_material(layout)
    async with Processes(folder) as processes:
        await start_upstream(layout, processes)
        await processes.ready("upstream", f"{layout.upstream}/.well-known/openid-configuration")
        await processes.start("authserver", "authserver", "--config", str(layout.config))
        await start_sidecar(layout, layout.servers[0], processes)
        await processes.ready("authserver", f"{layout.ops}/readyz")
        await processes.ready("sidecar-plain", f"{layout.servers[0].ops}/readyz")
        yield layout


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", SERVERS)
async def test_a_client_comes_from_401_to_a_tool_of_an_unmodified_server(
    tmp_path: Path, client: str, kind: str
) -> None:
    tool, arguments, expected = TOOLS[kind]
    async with _stack(tmp_path) as layout:
        server = layout.servers[0]
        assert server.app_port is not None
        async with (
            unmodified_server(kind, server.app_port, tmp_path / "server.log"),
            client_process(client, server.resource, tmp_path, tool, arguments) as driven,
        ):
            for _ in range(3):
                assert expected in str(await driven.whoami())
            assert driven.sign_ins == 1


@pytest.fixture
async def everything(tmp_path: Path) -> AsyncIterator[Gated]:
    """The gateway before the npm server, and a fake authserver that knows alice and bob."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gate: Any = {"GATEWAY": f"0:{port}", "GATEWAY_HOST": "127.0.0.1"}
    async with (
        unmodified_server("everything", port, tmp_path / "server.log"),
        harness(tmp_path, Authorities.create(), **gate) as inner,
        serving(inner, RawApp()) as gated,
    ):
        inner.authserver.always(by_user)
        yield gated


async def _session(g: Gated, user: str) -> Session:
    session = Session(g.http, g.url("/mcp"))
    await session.initialize(JWT[user])
    return session


def _long(session: Session, user: str, **parameters: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """A call whose progress is told in events."""
    message = {
        "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {
            "name": "trigger-long-running-operation",
            "arguments": {"duration": 0.5, "steps": 5} | parameters,
            "_meta": {"progressToken": "p"},
        },
    }  # fmt: skip
    return message, _headers(session, user)


def _headers(session: Session, user: str, **more: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {JWT[user]}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-06-18",
        "Mcp-Session-Id": session.id,
    } | more


def _events(text: str) -> list[tuple[str, Any]]:
    """The id and the message of each event; one without data only names an id to resume from."""
    events = []
    for event in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line)
        if "data" in fields:
            events.append((fields.get("id", ""), json.loads(fields["data"])))
    return events


async def test_progress_comes_as_events_and_ends_with_the_result(everything: Gated) -> None:
    session = await _session(everything, "alice")
    message, headers = _long(session, "alice")
    async with everything.http.post(session.url, json=message, headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        events = _events(await answer.text())
    told = [event["params"]["progress"] for _, event in events if "method" in event]
    assert told == [1, 2, 3, 4, 5]
    assert "completed" in events[-1][1]["result"]["content"][0]["text"]


async def test_a_stream_is_resumed_where_it_broke_off(everything: Gated) -> None:
    session = await _session(everything, "alice")
    message, headers = _long(session, "alice")
    async with everything.http.post(session.url, json=message, headers=headers) as answer:
        events = _events(await answer.text())
    ids = [event_id for event_id, _ in events if event_id]
    resuming = _headers(session, "alice", **{"Last-Event-ID": ids[1]})
    async with everything.http.get(session.url, headers=resuming) as stream:
        assert stream.status == 200
        text = ""
        while "completed" not in text:
            text += (await stream.content.readany()).decode()
    assert [event_id for event_id, _ in _events(text)] == ids[2:]


async def test_a_call_is_cancelled_by_its_client(everything: Gated) -> None:
    session = await _session(everything, "alice")
    message, headers = _long(session, "alice", duration=60, steps=600)
    async with everything.http.post(session.url, json=message, headers=headers) as answer:
        await answer.content.readuntil(b"notifications/progress")
        cancel = {
            "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7},
        }  # fmt: skip
        status, _, _ = await session.post(cancel, JWT["alice"])
        assert status == 202
    await everything.inner.until(lambda: len(everything.parts.streams) == 0)
    assert await _echo(session, "alice") == "Echo: still here"


async def _echo(session: Session, user: str) -> str:
    message = {
        "jsonrpc": "2.0", "id": 8, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"message": "still here"}},
    }  # fmt: skip
    status, text, _ = await session.post(message, JWT[user])
    assert status == 200, text
    result: str = _events(text)[-1][1]["result"]["content"][0]["text"]
    return result


async def test_a_session_of_an_unmodified_server_is_its_users_alone(everything: Gated) -> None:
    alice, bob = await _session(everything, "alice"), await _session(everything, "bob")
    stolen = Session(everything.http, alice.url, alice.id)
    message, _ = _long(alice, "bob")
    for method in ("GET", "POST", "DELETE"):
        async with everything.http.request(
            method, alice.url, json=message, headers=_headers(stolen, "bob")
        ) as answer:
            assert answer.status == 404
    assert await _echo(alice, "alice") == "Echo: still here"
    assert await _echo(bob, "bob") == "Echo: still here"


async def test_many_users_stream_at_once(everything: Gated) -> None:
    names = [f"user{number}" for number in range(20)]
    jwt = users(*names)
    JWT.update(jwt)

    async def one(user: str) -> int:
        session = await _session(everything, user)
        message, headers = _long(session, user)
        async with everything.http.post(session.url, json=message, headers=headers) as answer:
            return len(_events(await answer.text()))

    assert await asyncio.gather(*(one(name) for name in names)) == [6] * 20


async def test_the_older_transport_of_a_server_from_pypi(tmp_path: Path) -> None:
    """mcp-proxy also speaks HTTP with SSE, whose session id is in a query."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gate: Any = {"GATEWAY": f"0:{port}", "GATEWAY_HOST": "127.0.0.1"}
    async with (
        unmodified_server("mcp_proxy", port, tmp_path / "server.log"),
        harness(tmp_path, Authorities.create(), **gate) as inner,
        serving(inner, RawApp()) as g,
    ):
        inner.authserver.always(by_user)
        headers = {"Authorization": f"Bearer {JWT['alice']}"}
        async with g.http.get(g.url("/sse"), headers=headers) as stream:
            first = (await stream.content.readuntil(b"\r\n\r\n")).decode()
            path = first.split("data: ")[1].strip()
            hello = {
                "jsonrpc": "2.0", "id": 1, "method": "initialize",
                "params": {
                    "protocolVersion": "2024-11-05", "capabilities": {},
                    "clientInfo": {"name": "t", "version": "1"},
                },
            }  # fmt: skip
            stranger = {"Authorization": f"Bearer {JWT['bob']}"}
            async with g.http.post(g.url(path), json=hello, headers=stranger) as answer:
                assert answer.status == 404
            async with g.http.post(g.url(path), json=hello, headers=headers) as answer:
                assert answer.status == 202
            assert b"serverInfo" in await stream.content.readuntil(b"\r\n\r\n")
        async with aiohttp.ClientSession() as http, http.get(g.url("/sse")) as refused:
            assert refused.status == 401
