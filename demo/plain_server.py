"""An MCP server that knows nothing of OAuth and nothing of Tokenward.

It calls its API at a base URL from its environment, and hands the caller's `Authorization` on, as
many servers do. Behind the gateway, with Attach as the API's base URL, that is enough.
"""

import asyncio
import os
from argparse import ArgumentParser
from contextlib import suppress

import httpx2
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def build(http: httpx2.AsyncClient, *, name: str, api: str) -> Starlette:
    """The server as an ASGI application, with a path for probes."""
    server: MCPServer = MCPServer(name, log_level="WARNING")

    @server.tool()
    async def whoami(context: Context) -> dict[str, object]:
        """Say which account of the upstream this user has."""
        sent = context.headers or {}
        headers = {"Authorization": sent.get("authorization", "")}
        answer = await http.get(f"{api}/api/user", headers=headers)
        answer.raise_for_status()
        account: dict[str, object] = answer.json()
        return account

    app = server.streamable_http_app()
    app.router.routes.append(Route("/healthz", _healthz))
    return app


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _serve(name: str, port: int) -> None:
    api = os.environ["API_URL"]  # noqa: TID251 - the one setting of such a server
    async with httpx2.AsyncClient(trust_env=False) as http:
        app = build(http, name=name, api=api)
        options = {"host": "127.0.0.1", "port": port, "log_level": "warning", "access_log": False}
        await uvicorn.Server(
            uvicorn.Config(app, timeout_graceful_shutdown=2, **options)  # type: ignore[arg-type]
        ).serve()


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m demo.plain_server", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parsed = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parsed.name, parsed.port))
