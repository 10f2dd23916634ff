"""Our packages, as built and installed, beside the sidecar itself.

The demo and test_dead_grants.py do the same with everything behind the sidecar real as well.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.authserver import ACCESS_TOKEN, answering, refuse
from tests.interop.environments import each_of
from tests.interop.serving import PYTHON_SERVERS, TYPESCRIPT_SERVERS, mcp_server, plain_server
from tests.interop.sessions import Session, jwt
from tests.sidecar.harness import Authorities, Harness, harness

pytestmark = pytest.mark.timeout(400)

CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "whoami"}}
NODE_FETCH = """
const [jwt] = process.argv.slice(1);
const answer = await fetch(`${process.env.TOKENWARD_URL}/v1/token`, {
  method: "POST",
  headers: {
    Authorization: `Bearer ${jwt}`,
    "X-Tokenward": "1",
    "Content-Type": "application/json",
  },
  body: "{}",
});
console.log(JSON.stringify([answer.status, await answer.json()]));
"""
METADATA = "https://github-mcp.example.com/.well-known/oauth-protected-resource/mcp"


@pytest.fixture
async def r(tmp_path: Path) -> AsyncIterator[Harness]:
    async with harness(tmp_path, Authorities.create()) as running:
        yield running


@pytest.mark.parametrize("kind", each_of(*PYTHON_SERVERS, *TYPESCRIPT_SERVERS))
async def test_what_the_sidecar_says_reaches_tool_and_client(r: Harness, kind: str) -> None:
    async with mcp_server(kind, f"http://127.0.0.1:{r.port}") as url:
        session = Session(r.http, url)
        await session.initialize(jwt(1))
        for _ in range(3):
            assert await session.call("whoami", jwt(1)) == {"token": ACCESS_TOKEN}
        assert len(r.authserver.received) == 1  # the sidecar remembers

        r.authserver.always(answering(lambda: refuse(400, "invalid_grant")))
        status, text, answer = await session.post(CALL, jwt(2))
        assert (status, "reauthentication_required" in text) == (401, True)
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith('Bearer error="invalid_token"')
        assert f'resource_metadata="{METADATA}"' in challenge

        r.authserver.always(answering(lambda: refuse(503, "temporarily_unavailable")))
        status, _, answer = await session.post(CALL, jwt(3))
        assert (status, answer.headers["Retry-After"]) == (503, "2")


@pytest.mark.parametrize("kind", ["http", "express4", "express5"])
async def test_the_sidecar_alone_can_guard_a_server_and_lead_clients(r: Harness, kind: str) -> None:
    options = '{"requireJwt": true, "serveMetadata": true}'
    url = f"http://127.0.0.1:{r.port}"
    async with plain_server(kind, options, url) as server, aiohttp.ClientSession() as http:
        async with http.post(f"{server}/mcp", data=b"{}") as answer:
            assert answer.status == 401
            assert f'resource_metadata="{METADATA}"' in answer.headers["WWW-Authenticate"]
        async with http.get(f"{server}/.well-known/oauth-protected-resource/mcp") as answer:
            document = await answer.json()
        assert document["resource"] == "https://github-mcp.example.com/mcp"
        headers = {"Authorization": f"Bearer {jwt(1)}"}
        async with http.get(f"{server}/mcp", headers=headers) as answer:
            assert (await answer.json())["found"] == ACCESS_TOKEN
        r.authserver.always(answering(lambda: refuse(400, "invalid_request")))
        async with http.get(
            f"{server}/mcp", headers={"Authorization": f"Bearer {jwt(2)}"}
        ) as answer:
            assert answer.status == 401


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here")
async def test_node_fetch_is_no_browser(r: Harness) -> None:
    """It sends `Sec-Fetch-Mode: cors` with every request."""
    process = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "--eval", NODE_FETCH, jwt(1),
        env={
            "PATH": os.environ["PATH"],  # noqa: TID251 - where node is
            "TOKENWARD_URL": f"http://127.0.0.1:{r.port}",
        },
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await process.communicate()
    status, answer = json.loads(printed)
    assert (status, answer["access_token"]) == (200, ACCESS_TOKEN)
