"""MCP servers of the newest SDKs with our packages, as built and installed, beside a sidecar.

Each checks JWTs itself, in front of our middleware, and keeps MCP sessions.
"""

import base64
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes.sidecar import CHALLENGE, SIGN_IN_AGAIN, Asked, FakeSidecar
from tests.interop.environments import python_of, python_wheel
from tests.interop.serving import PYTHON_SERVERS, TYPESCRIPT_SERVERS, mcp_server

pytestmark = pytest.mark.timeout(400)

SERVERS = (*PYTHON_SERVERS, *TYPESCRIPT_SERVERS)


def jwt(number: int, signature: str = "good") -> str:
    """Alice's `number`-th JWT from the same client."""
    parts = ({"alg": "ES256"}, {"sub": "alice", "client_id": "c-1", "n": number})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), signature])


async def by_jwt(asked: Asked) -> web.StreamResponse:
    """Each JWT its own token."""
    assert asked.jwt is not None
    payload = asked.jwt.split(".")[1]
    number = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["n"]
    return web.json_response({"access_token": f"token-of-{number}", "expires_in": 3600})


@dataclass
class Session:
    """An MCP session as JSON-RPC over HTTP, with another JWT for each message if wanted."""

    http: aiohttp.ClientSession
    url: str
    id: str = ""

    async def post(
        self, message: Any, token: str, **headers: str
    ) -> tuple[int, str, aiohttp.ClientResponse]:
        given = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-06-18",
            **({"Mcp-Session-Id": self.id} if self.id else {}),
            **headers,
        }
        async with self.http.post(self.url, json=message, headers=given) as answer:
            return answer.status, await answer.text(), answer

    async def initialize(self, token: str) -> None:
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        asked = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
        status, text, answer = await self.post(asked, token)
        assert status == 200, text
        self.id = answer.headers["Mcp-Session-Id"]
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, token)

    async def call(self, tool: str, token: str) -> Any:
        parameters = {"name": tool, "arguments": {}}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}
        status, text, _ = await self.post(asked, token)
        assert status == 200, text
        data = [line[5:] for line in text.splitlines() if line.startswith("data:")] or [text]
        result = json.loads(data[-1])["result"]
        assert not result.get("isError"), result
        return json.loads(result["content"][0]["text"])


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar().listening() as fake:
        fake.always(by_jwt)
        yield fake


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_server_acts_with_the_jwt_of_the_request_and_answers_401_before_the_tool(
    sidecar: FakeSidecar, http: aiohttp.ClientSession, kind: str
) -> None:
    async with mcp_server(kind, sidecar.url) as url:
        session = Session(http, url)
        await session.initialize(jwt(1))
        assert await session.call("whoami", jwt(1)) == {"token": "token-of-1"}

        # A session outlives the JWT that it began with: the refreshed one counts from then on.
        asked = len(sidecar.asked)
        assert await session.call("whoami", jwt(2)) == {"token": "token-of-2"}
        assert [question.jwt for question in sidecar.asked[asked:]] == [f"Bearer {jwt(2)}"]
        if kind in PYTHON_SERVERS:
            assert await session.call("whoami_sync", jwt(3)) == {"token": "token-of-3"}

        sidecar.then(SIGN_IN_AGAIN)
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "whoami"}}
        status, text, answer = await session.post(call, jwt(4))
        assert (status, answer.headers["WWW-Authenticate"]) == (401, CHALLENGE)
        assert json.loads(text)["error"] == "reauthentication_required"

        assert await session.call("whoami", jwt(5)) == {"token": "token-of-5"}

        asked = len(sidecar.asked)
        status, _, _ = await session.post(call, jwt(6, signature="forged"))
        assert (status, len(sidecar.asked)) == (401, asked)


@pytest.mark.parametrize("name", ["fastmcp", "official_1"])
def test_what_the_wheel_needs_is_there_beside_an_sdk(name: str) -> None:
    """pip finds nothing left to install, in the oldest and in the newest surroundings."""
    found = subprocess.run(
        [python_of(name), "-m", "pip", "install", "--dry-run", "--no-index", python_wheel()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "Would install tokenward-mcp-0.1.0" in found.stdout
