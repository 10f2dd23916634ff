"""The sample MCP server at its HTTP door, between a fake authserver, sidecar and upstream API."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx2
import pytest
import uvicorn
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey

from demo.mcp_client import ToolFailed, connect
from demo.mcp_server import build

KEY = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
FOREIGN_KEY = ECKey.generate_key("P-256", auto_kid=True)
LONG_AGO, FAR_AHEAD = 1_700_000_000, 4_000_000_000
UPSTREAM_TOKEN = "upstream-access-token"
RENEWED_TOKEN = "renewed-access-token"


@dataclass
class Neighbours:
    """Authserver, sidecar and API in one: what they answer, and what they were asked."""

    url: str = ""
    refusal: dict[str, str] | None = None
    api_refuses: set[str] = field(default_factory=set)
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    account: dict[str, Any] = field(
        default_factory=lambda: {"login": "alice", "id": 1001, "name": "Alice", "plan": "secret"}
    )

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/.well-known/jwks.json", self._jwks)
        application.router.add_post("/v1/token", self._token)
        application.router.add_get("/api/user", self._user)
        return application

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [KEY.as_dict(private=False)]})

    async def _token(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        self.bodies.append(await request.json())
        if self.refusal is not None:
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            return web.json_response(self.refusal, status=401, headers=challenge)
        token = RENEWED_TOKEN if "rejected_token" in self.bodies[-1] else UPSTREAM_TOKEN
        return web.json_response({"access_token": token, "token_type": "Bearer"})

    async def _user(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if request.headers["Authorization"].removeprefix("Bearer ") in self.api_refuses:
            return web.Response(status=401)
        return web.json_response(self.account)


@dataclass(frozen=True)
class Site:
    resource: str
    neighbours: Neighbours

    def token(self, key: ECKey = KEY, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A JWT as the authserver issues it, with `changes`; None leaves a claim out."""
        claims = {
            "iss": self.neighbours.url,
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
        whole = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid, **(header or {})}
        return jwt.encode(whole, given, key)

    async def post(self, token: str | None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.resource, json={}, headers=headers) as answer,
        ):
            return answer.status, answer.headers.get("WWW-Authenticate", "")


def unsigned(token: str) -> str:
    """The same claims under a header that says they need no signature."""
    header = {"alg": "none", "typ": "at+jwt", "kid": KEY.kid}
    encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return f"{encoded}.{token.split('.')[1]}."


@asynccontextmanager
async def served(application: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(url: str) -> AsyncIterator[str]:
    """The MCP server on a free port; yields its resource."""
    listening = socket.create_server(("127.0.0.1", 0))
    resource = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    async with httpx2.AsyncClient(trust_env=False) as http:
        app = build(
            http,
            name="notes",
            resource=resource,
            issuer=url,
            scopes=["mcp"],
            tokenward_url=url,
            api=url,
        )
        config = uvicorn.Config(app, log_level="error", lifespan="on")
        process = uvicorn.Server(config)
        serving = asyncio.create_task(process.serve(sockets=[listening]))
        try:
            yield resource
        finally:
            process.should_exit = True
            await serving


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    neighbours = Neighbours()
    async with served(neighbours.application()) as url, running(url) as resource:
        neighbours.url = url
        yield Site(resource, neighbours)


async def test_whoami_acts_as_the_caller_and_keeps_the_upstream_token_to_itself(
    site: Site,
) -> None:
    token = site.token()

    async with connect(site.resource, token) as connection:
        account = await connection.whoami()

    assert account == {"login": "alice", "id": 1001, "name": "Alice"}
    (to_api,) = [asked for asked in site.neighbours.asked if asked.path == "/api/user"]
    to_sidecar = site.neighbours.asked[0]
    assert to_sidecar.headers["Authorization"] == f"Bearer {token}"
    assert to_sidecar.headers["X-Tokenward"] == "1"
    assert to_sidecar.content_type == "application/json"
    # One question for each message, and none by the tool itself.
    assert site.neighbours.bodies == [{}] * (len(site.neighbours.asked) - 1)
    assert to_api.headers["Authorization"] == f"Bearer {UPSTREAM_TOKEN}"


async def test_a_sign_in_that_the_sidecar_asks_for_reaches_the_client_as_a_401(
    site: Site,
) -> None:
    site.neighbours.refusal = {
        "error": "reauthentication_required",
        "error_description": "sign in again",
    }

    status, challenge = await site.post(site.token())

    assert (status, challenge) == (401, 'Bearer error="invalid_token"')
    assert len(site.neighbours.asked) == 1


async def test_a_forged_token_is_not_asked_about(site: Site) -> None:
    status, _ = await site.post(site.token(key=FOREIGN_KEY))
    assert (status, site.neighbours.asked) == (401, [])


async def test_a_token_that_the_api_refuses_is_renewed_within_the_call(site: Site) -> None:
    site.neighbours.api_refuses = {UPSTREAM_TOKEN}

    async with connect(site.resource, site.token()) as connection:
        account = await connection.whoami()

    assert account["login"] == "alice"
    assert {"rejected_token": UPSTREAM_TOKEN} in site.neighbours.bodies


async def test_an_api_that_refuses_every_token_is_the_tools_failure(site: Site) -> None:
    site.neighbours.api_refuses = {UPSTREAM_TOKEN, RENEWED_TOKEN}

    async with connect(site.resource, site.token()) as connection:
        with pytest.raises(ToolFailed, match="answered 401"):
            await connection.whoami()


async def test_without_a_token_the_challenge_leads_to_the_metadata(site: Site) -> None:
    status, challenge = await site.post(None)

    origin = site.resource.removesuffix("/mcp")
    metadata = f"{origin}/.well-known/oauth-protected-resource/mcp"
    assert status == 401
    assert challenge.startswith("Bearer ")
    assert f'resource_metadata="{metadata}"' in challenge
    async with aiohttp.ClientSession() as http, http.get(metadata) as answer:
        document = await answer.json()
    assert document["resource"] == site.resource
    assert document["authorization_servers"] == [site.neighbours.url]
    assert document["scopes_supported"] == ["mcp"]


FORGERIES: dict[str, Callable[[Site], str]] = {
    "for another resource": lambda site: site.token(aud="https://other.example/mcp"),
    "for a list of resources": lambda site: site.token(aud=[site.resource]),
    "for no resource": lambda site: site.token(aud=None),
    "of another issuer": lambda site: site.token(iss="https://evil.example"),
    "expired": lambda site: site.token(exp=LONG_AGO),
    "never expiring": lambda site: site.token(exp=None),
    "not yet valid": lambda site: site.token(nbf=FAR_AHEAD),
    "without a session": lambda site: site.token(tsid=None),
    "without a user": lambda site: site.token(sub=None),
    "without a client": lambda site: site.token(client_id=None),
    "of another type": lambda site: site.token(header={"typ": "JWT"}),
    "by an unknown key": lambda site: site.token(key=FOREIGN_KEY),
    "by a key under another's name": lambda site: site.token(
        key=FOREIGN_KEY, header={"kid": KEY.kid}
    ),
    "unsigned": lambda site: unsigned(site.token()),
    "not a JWT": lambda _: "not-a-jwt",
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_token_that_is_not_for_this_server_is_refused(site: Site, forgery: str) -> None:
    status, challenge = await site.post(FORGERIES[forgery](site))

    assert status == 401
    assert 'error="invalid_token"' in challenge


async def test_a_token_without_the_scope_is_told_which_one_is_missing(site: Site) -> None:
    status, challenge = await site.post(site.token(scope="other"))

    assert status == 403
    assert 'error="insufficient_scope"' in challenge


async def test_an_authserver_that_is_away_does_not_look_like_a_bad_token() -> None:
    gone = "http://127.0.0.1:1"
    async with running(gone) as resource:
        site = Site(resource, Neighbours(url=gone))

        status, challenge = await site.post(site.token())

    assert status == 500
    assert not challenge
