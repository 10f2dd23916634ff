"""MCP servers of the newest SDKs with our packages, as built and installed, beside a sidecar.

Each checks JWTs itself, in front of our middleware, and keeps MCP sessions.
"""

import base64
import json
import subprocess
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from tests.fakes.sidecar import CHALLENGE, SIGN_IN_AGAIN, Asked, FakeSidecar
from tests.interop.environments import each_of, python_of, python_wheel
from tests.interop.serving import PYTHON_SERVERS, TYPESCRIPT_SERVERS, mcp_server
from tests.interop.sessions import Session, jwt

pytestmark = pytest.mark.timeout(400)

SERVERS = (*PYTHON_SERVERS, *TYPESCRIPT_SERVERS)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def by_jwt(asked: Asked) -> web.StreamResponse:
    """Each JWT its own token."""
    assert asked.jwt is not None
    payload = asked.jwt.split(".")[1]
    number = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["n"]
    return web.json_response({"access_token": f"token-of-{number}", "expires_in": 3600})


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar().listening() as fake:
        fake.always(by_jwt)
        yield fake


@pytest.mark.parametrize("kind", each_of(*SERVERS))
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


@pytest.mark.parametrize("name", each_of("fastmcp", "official_1"))
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
