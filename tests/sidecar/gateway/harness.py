"""A whole sidecar with a gateway, in this process, before an app on a raw socket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from sidecar.gateway.app import GatewayParts
from sidecar.timeouts import DEFAULT, Timeouts
from tests.fakes.authserver import FakeAuthserver, Received, release
from tests.sidecar.gateway.app import RawApp, raw_app
from tests.sidecar.harness import JWT, Authorities, Harness, Reply, harness

RESOURCE_METADATA = (
    'resource_metadata="https://github-mcp.example.com/.well-known/oauth-protected-resource/mcp"'
)


@dataclass
class Gated:
    """A sidecar and its gateway, the app behind it, and a client."""

    inner: Harness
    parts: GatewayParts
    app: RawApp
    port: int

    @property
    def authserver(self) -> FakeAuthserver:
        return self.inner.authserver

    @property
    def http(self) -> aiohttp.ClientSession:
        return self.inner.http

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def call(
        self,
        path: str = "/mcp",
        *,
        method: str = "POST",
        jwt: str | None = JWT,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> Reply:
        """Call the MCP server as a client does."""
        sent = dict(headers or {})
        if jwt is not None:
            sent["Authorization"] = f"Bearer {jwt}"
        async with self.http.request(
            method, self.url(path), headers=sent, data=data, allow_redirects=False
        ) as response:
            raw = await response.read()
            json = response.content_type == "application/json" and raw
            return Reply(
                response.status, response.headers, await response.json() if json else None, raw
            )

    async def send(self, raw: bytes, *, end: bool = True) -> bytes:
        """Bytes exactly as given, and all that comes back until the gateway closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(raw)
            if end:
                writer.write_eof()
            return await reader.read()
        finally:
            writer.close()

    def metric(self, result: str) -> float:
        return self.inner.metric("tokenward_sidecar_requests_total", door="gateway", result=result)


def users(*names: str) -> dict[str, str]:
    """A JWT for each user."""
    return {name: f"eyJhbGciOiJFUzI1NiJ9.{name}.c2lnbmF0dXJl" for name in names}


async def by_user(received: Received) -> Any:
    """A release for the user that the JWT's second part names."""
    if "subject_token" not in received.form:
        return web.Response(status=404)  # the revocation feed
    name = received.form["subject_token"].split(".")[1]
    return release(
        sub=name, client_id=f"{name}-client", session=f"{name}-session",
        connection=f"{name}-connection", access_token=f"{name}-token",
    )  # fmt: skip


@asynccontextmanager
async def gated(
    folder: Path,
    authorities: Authorities,
    changes: Mapping[str, str] | None = None,
    *,
    app: RawApp | None = None,
    timeouts: Timeouts = DEFAULT,
) -> AsyncIterator[Gated]:
    """The harness of the sidecar's tests, with a gateway before `app`."""
    async with raw_app(app) as behind:
        settings: dict[str, Any] = {"GATEWAY": f"0:{behind.port}", "GATEWAY_HOST": "127.0.0.1"}
        settings |= changes or {}
        async with (
            harness(folder, authorities, timeouts=timeouts, **settings) as inner,
            serving(inner, behind) as gate,
        ):
            yield gate


@asynccontextmanager
async def serving(inner: Harness, behind: RawApp) -> AsyncIterator[Gated]:
    parts = inner.sidecar.gateway
    assert parts is not None
    bound = await parts.listener.bind(0.2)
    try:
        yield Gated(inner, parts, behind, bound.port)
    finally:
        parts.close()
        await bound.cleanup()
