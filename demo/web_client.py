"""A page that is an MCP client: it signs its visitor in and shows what whoami says of them.

It keeps JWTs in memory by a cookie and never sends one to the browser.
"""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from demo.layout import HOST, SCOPE, Layout, Server
from demo.mcp_client import ToolFailed, connect

_COOKIE: Final = "demo_page"

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tokenward demo</title>
<style>
  :root {{ color-scheme: light dark }}
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto }}
</style>
<main>
<h1>Tokenward demo</h1>
{body}
</main>
</html>
"""


@dataclass(frozen=True)
class _Pending:
    """A sign-in under way."""

    server: Server
    state: str
    verifier: str


@dataclass(frozen=True)
class _Jwt:
    text: str
    expires_at: float


@dataclass
class _Visitor:
    pending: _Pending | None = None
    jwts: dict[str, _Jwt] = field(default_factory=dict)

    def jwt(self, server: str) -> str | None:
        """The visitor's JWT for that server, while it lives."""
        held = self.jwts.get(server)
        return held.text if held is not None and time.monotonic() < held.expires_at else None


class WebClient:
    def __init__(self, layout: Layout, http: aiohttp.ClientSession) -> None:
        self._layout, self._http = layout, http
        self._servers = {server.name: server for server in layout.servers}
        self._visitors: dict[str, _Visitor] = {}
        self._client_id: str | None = None
        self._redirect_uri = f"http://{HOST}:{layout.page_port}/callback"

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/", self._home)
        application.router.add_get("/sign-in/{server}", self._sign_in)
        application.router.add_get("/callback", self._callback)
        return application

    async def _home(self, request: web.Request) -> web.Response:
        """Every server, with the visitor's account where they are signed in."""
        visitor = self._visitor(request)
        items = []
        for name in self._servers:
            jwt = visitor.jwt(name)
            link = f'<a href="/sign-in/{name}">sign in</a>'
            items.append(f"<li><b>{name}</b>: {await self._account(name, jwt) if jwt else link}")
        text = "<p>One authserver, several MCP servers, each with its own sidecar.</p>"
        body = f"{text}<ul>{''.join(items)}</ul><p>Reload to call whoami again.</p>"
        return _html(body)

    async def _account(self, name: str, jwt: str) -> str:
        """Call whoami of the MCP server called `name`, as any MCP client would."""
        try:
            async with connect(self._servers[name].resource, jwt) as connection:
                return f"whoami says <code>{escape(json.dumps(await connection.whoami()))}</code>"
        except ToolFailed as failed:
            return f"whoami failed: {escape(str(failed))}"

    async def _sign_in(self, request: web.Request) -> web.Response:
        server = self._servers.get(request.match_info["server"])
        if server is None:
            raise web.HTTPNotFound
        cookie = secrets.token_urlsafe()
        visitor = self._visitors[cookie] = self._visitor(request)
        pending = _Pending(server, secrets.token_urlsafe(), secrets.token_urlsafe(48))
        visitor.pending = pending
        digest = hashlib.sha256(pending.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": await self._registered(),
            "redirect_uri": self._redirect_uri,
            "scope": SCOPE,
            "state": pending.state,
            "resource": server.resource,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        location = f"{self._layout.issuer}/oauth/authorize?{urlencode(query)}"
        answer = web.Response(status=303, headers={"Location": location})
        answer.set_cookie(_COOKIE, cookie, httponly=True, samesite="Lax")
        return answer

    async def _callback(self, request: web.Request) -> web.Response:
        visitor = self._visitor(request)
        pending, visitor.pending = visitor.pending, None
        query = request.query
        if pending is None or not secrets.compare_digest(query.get("state", ""), pending.state):
            return _html("<p>This sign-in was not started here.</p>", status=400)
        if query.get("iss") != self._layout.issuer or "code" not in query:
            problem = escape(query.get("error", "the answer is not the authserver's"))
            return _html(f'<p>Not signed in: {problem}. <a href="/">Back</a></p>', status=400)
        visitor.jwts[pending.server.name] = await self._redeem(pending, query["code"])
        return web.Response(status=303, headers={"Location": "/"})

    async def _redeem(self, pending: _Pending, code: str) -> _Jwt:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "client_id": await self._registered(),
            "code_verifier": pending.verifier,
            "resource": pending.server.resource,
        }
        url = f"{self._layout.issuer}/oauth/token"
        async with self._http.post(url, data=form, raise_for_status=True) as answer:
            tokens = await answer.json()
        return _Jwt(tokens["access_token"], time.monotonic() + tokens["expires_in"])

    async def _registered(self) -> str:
        """Our client id; the first call registers us (RFC 7591) as a public client."""
        if self._client_id is None:
            metadata = {
                "client_name": "Tokenward demo page",
                "redirect_uris": [self._redirect_uri],
                "token_endpoint_auth_method": "none",
            }
            url = f"{self._layout.issuer}/oauth/register"
            async with self._http.post(url, json=metadata, raise_for_status=True) as answer:
                registered: dict[str, Any] = await answer.json()
            self._client_id = str(registered["client_id"])
        return self._client_id

    def _visitor(self, request: web.Request) -> _Visitor:
        """The visitor with this cookie, or a new one, kept by nobody yet."""
        return self._visitors.get(request.cookies.get(_COOKIE, ""), _Visitor())


@asynccontextmanager
async def serve_page(layout: Layout) -> AsyncIterator[str]:
    """Serve the page until the block ends; yields its URL."""
    async with aiohttp.ClientSession() as http:
        application = WebClient(layout, http).application()
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, layout.page_port).start()
            yield f"http://{HOST}:{layout.page_port}/"
        finally:
            await runner.cleanup()


def _html(body: str, *, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    text = _PAGE.format(body=body)
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)
