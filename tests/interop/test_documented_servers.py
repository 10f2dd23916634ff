"""The MCP servers of the how-to pages, put together from their code and run as they stand there.

Only URLs and the port are replaced. Each runs in the environment of its SDK, with our package as
installed, beside a sidecar, an authserver's keys and an API.
"""

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.fakes.sidecar import CHALLENGE, SIGN_IN_AGAIN, FakeSidecar, refusal
from tests.interop.environments import ROOT, each_of, node_site, python_of, python_site
from tests.interop.sessions import Session

pytestmark = pytest.mark.timeout(400)

KEY = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
FOREIGN_KEY = ECKey.generate_key("P-256", auto_kid=True)
LONG_AGO, FAR_AHEAD = 1_700_000_000, 4_000_000_000

TOKEN_PAGE, JWT_PAGE = "get-a-token.md", "verify-the-jwt.md"
PROGRAMS = {
    "fastmcp": ((JWT_PAGE, "fastmcp"), (TOKEN_PAGE, "fastmcp")),
    "official_1": ((JWT_PAGE, "pyjwt"), (JWT_PAGE, "official"), (TOKEN_PAGE, "official")),
    "official_2": ((JWT_PAGE, "pyjwt"), (JWT_PAGE, "official"), (TOKEN_PAGE, "official")),
    "typescript_1": ((JWT_PAGE, "jose"), (JWT_PAGE, "typescript_1"), (TOKEN_PAGE, "typescript")),
    "typescript_2": ((JWT_PAGE, "jose"), (JWT_PAGE, "typescript_2"), (TOKEN_PAGE, "typescript")),
}
# What the pages say in words about the other line of an SDK.
CHANGES = {
    "official_1": {
        "from mcp.server.mcpserver import MCPServer": (
            "from mcp.server.fastmcp import FastMCP as MCPServer"
        )
    },
    "typescript_2": {
        '"@modelcontextprotocol/sdk/server/mcp.js"': '"@modelcontextprotocol/server"',
        "import { StreamableHTTPServerTransport }": (
            "import { NodeStreamableHTTPServerTransport as StreamableHTTPServerTransport }"
        ),
        '"@modelcontextprotocol/sdk/server/streamableHttp.js"': '"@modelcontextprotocol/node"',
    },
}


def snippet(page: str, name: str) -> str:
    text = (ROOT / "docs/how-to" / page).read_text()
    (found,) = re.findall(rf"```(?:python|js) {name}\n(.*?)```", text, re.DOTALL)
    return str(found)


@dataclass(frozen=True)
class Site:
    sidecar: FakeSidecar
    http: aiohttp.ClientSession
    issuer: str
    port: int

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def resource(self) -> str:
        return f"{self.origin}/mcp"

    def token(self, key: ECKey = KEY, typ: str = "at+jwt", **changes: Any) -> str:
        """A JWT as the authserver issues it, with `changes`; None leaves a claim out."""
        claims = {
            "iss": self.issuer,
            "sub": "u-1",
            "aud": self.resource,
            "exp": FAR_AHEAD,
            "iat": LONG_AGO,
            "nbf": LONG_AGO,
            "jti": "j-1",
            "client_id": "c-1",
            "scope": "mcp",
            "tsid": "t-1",
            **changes,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "ES256", "typ": typ, "kid": key.kid}, given, key)

    def here(self, program: str) -> str:
        """The program with this site's URLs in place of the page's."""
        for theirs, ours in (
            ("https://notes.example.com", self.origin),
            ("https://auth.example.com", self.issuer),
            ("https://api.example.com", self.issuer),
            ("8000", str(self.port)),
        ):
            program = program.replace(theirs, ours)
        return program

    async def answers(self) -> None:
        """Wait until the server listens; the test's time limit is the limit."""
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def _jwks(_: web.Request) -> web.Response:
    return web.json_response({"keys": [KEY.as_dict(private=False)]})


async def _user(request: web.Request) -> web.Response:
    token = request.headers["Authorization"].removeprefix("Bearer ")
    return web.json_response({"acts_with": token}, status=200 if token == "token-renewed" else 401)


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """An authserver's keys and an API at one address, a sidecar at another, and a free port."""
    application = web.Application()
    application.router.add_get("/.well-known/jwks.json", _jwks)
    application.router.add_get("/user", _user)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with FakeSidecar().listening() as sidecar, aiohttp.ClientSession() as http:
        here = Site(sidecar, http, issuer, port)
        sidecar.document = {"resource": here.resource, "authorization_servers": [issuer]}
        yield here
    await runner.cleanup()


@asynccontextmanager
async def running(kind: str, program: str, here: Site, folder: Path) -> AsyncIterator[None]:
    for theirs, ours in CHANGES.get(kind, {}).items():
        assert theirs in program
        program = program.replace(theirs, ours)
    command, environment = await asyncio.to_thread(_command, kind, here.here(program), folder)
    process = await asyncio.create_subprocess_exec(
        *command, env={"TOKENWARD_URL": here.sidecar.url, "HOME": str(folder), **environment}
    )
    try:
        async with asyncio.timeout(60):
            await here.answers()
        yield
    finally:
        process.terminate()
        await process.wait()


def _command(kind: str, program: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    if kind.startswith(("typescript", "http")):
        # A program finds packages from where it stands.
        script = node_site() / f"documented-{folder.name}.mjs"
        script.write_text(program)
        return ["node", str(script)], {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    script = folder / "server.py"
    script.write_text(program)
    python = sys.executable if kind == "official_2" else str(python_of(kind))
    return [python, str(script)], {"PYTHONPATH": str(python_site())}


FORGERIES: dict[str, Callable[[Site], str]] = {
    "for another resource": lambda here: here.token(aud="https://other.example/mcp"),
    "of another issuer": lambda here: here.token(iss="https://evil.example"),
    "of an issuer with a slash": lambda here: here.token(iss=f"{here.issuer}/"),
    "expired": lambda here: here.token(exp=LONG_AGO),
    "by an unknown key": lambda here: here.token(key=FOREIGN_KEY),
    "of another type": lambda here: here.token(typ="JWT"),
    "without a session": lambda here: here.token(tsid=None),
}
# FastMCP's verifier looks at neither; the sidecar, which is asked next, refuses such JWTs.
LEFT_TO_THE_SIDECAR = {"fastmcp": {"of another type", "without a session"}}


@pytest.mark.parametrize("kind", each_of(*PROGRAMS))
async def test_the_server_of_the_pages_works_as_it_stands_there(tmp_path: Path, kind: str) -> None:
    program = "\n".join(snippet(page, name) for page, name in PROGRAMS[kind])
    async with site() as here, running(kind, program, here, tmp_path):
        await _leads_clients_to_the_authserver(here)
        await _acts_with_the_users_token(here)
        await _refuses_forgeries_without_asking(here, LEFT_TO_THE_SIDECAR.get(kind, set()))
        here.sidecar.then(SIGN_IN_AGAIN)
        status, _, answer = await Session(here.http, here.resource).post({}, here.token())
        assert (status, answer.headers["WWW-Authenticate"]) == (401, CHALLENGE)


async def _leads_clients_to_the_authserver(here: Site) -> None:
    metadata = f"{here.origin}/.well-known/oauth-protected-resource/mcp"
    async with here.http.post(here.resource, json={}) as refused:
        assert refused.status == 401
        assert f'resource_metadata="{metadata}"' in refused.headers["WWW-Authenticate"]
    async with here.http.get(metadata) as answer:
        document = await answer.json()
    assert document["authorization_servers"] == [here.issuer]
    assert document["resource"] == here.resource


async def _acts_with_the_users_token(here: Site) -> None:
    session, token = Session(here.http, here.resource), here.token()
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    asked = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
    status, text, answer = await session.post(asked, token)
    assert status == 200, text
    session.id = answer.headers.get("Mcp-Session-Id", "")
    await session.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, token)
    # The API refuses the first token and takes the renewed one.
    assert await session.call("whoami", token) == {"acts_with": "token-renewed"}


async def _refuses_forgeries_without_asking(here: Site, left: set[str]) -> None:
    for name, forge in FORGERIES.items():
        before = len(here.sidecar.asked)
        if name in left:
            here.sidecar.then(refusal(401, "invalid_token"))
        status, text, _ = await Session(here.http, here.resource).post({}, forge(here))
        assert (name, status) == (name, 401), text
        assert len(here.sidecar.asked) - before == (name in left)


async def test_the_plain_server_of_the_page_works_as_it_stands_there(tmp_path: Path) -> None:
    async with site() as here, running("http", snippet(TOKEN_PAGE, "http"), here, tmp_path):
        headers = {"Authorization": f"Bearer {here.token()}"}
        async with here.http.post(here.resource, headers=headers) as answer:
            assert await answer.text() == "token-only"
        here.sidecar.then(SIGN_IN_AGAIN)
        async with here.http.get(here.resource) as answer:
            assert answer.status == 401


async def test_every_program_of_the_pages_is_run() -> None:
    on_the_pages = {
        (page, name)
        for page in (TOKEN_PAGE, JWT_PAGE)
        for name in re.findall(
            r"^```(?:python|js) ?(.*)$", (ROOT / "docs/how-to" / page).read_text(), re.MULTILINE
        )
    }
    run = {part for parts in PROGRAMS.values() for part in parts} | {(TOKEN_PAGE, "http")}
    run |= {(TOKEN_PAGE, "elicitation")}  # in tests/integrations/test_elicitation.py
    assert on_the_pages == run
