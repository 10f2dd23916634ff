"""`python -m tests.bench.tool_server`: an MCP server that reads an API in three ways."""

import argparse
import asyncio
import ssl
from typing import Any, Final

import httpx2
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

_PATH: Final = "/repos/octo/hello/issues"


def build(http: httpx2.AsyncClient, api: str, sidecar: str) -> MCPServer:
    """The server with its three tools."""
    server: MCPServer = MCPServer("bench", log_level="ERROR")

    @server.tool()
    async def direct() -> int:
        """Call the API with a token of the server's own."""
        return await _read(http, f"{api}{_PATH}", "Bearer own")

    @server.tool()
    async def hand_out(context: Context) -> int:
        """Ask the sidecar for the user's token, and call the API with it."""
        sent = {"Authorization": _caller(context), "X-Tokenward": "1"}
        answered = await http.post(f"{sidecar}/v1/token", headers=sent, json={})
        answered.raise_for_status()
        return await _read(http, f"{api}{_PATH}", f"Bearer {answered.json()['access_token']}")

    @server.tool()
    async def attach(context: Context) -> int:
        """Call the API through the sidecar."""
        return await _read(http, f"{sidecar}/upstream/github{_PATH}", _caller(context))

    return server


async def _read(http: httpx2.AsyncClient, url: str, authorization: str) -> int:
    answered = await http.get(url, headers={"Authorization": authorization})
    answered.raise_for_status()
    return len(answered.json()["items"])


def _caller(context: Context) -> str:
    return (context.headers or {}).get("authorization", "")


async def serve(port: int, api: str, sidecar: str, ca: str) -> None:
    tls = ssl.create_default_context(cafile=ca)
    async with httpx2.AsyncClient(trust_env=False, verify=tls, timeout=60) as http:
        app = build(http, api, sidecar).streamable_http_app(stateless_http=True, json_response=True)
        config = uvicorn.Config(app, "127.0.0.1", port, log_level="error", access_log=False)
        await uvicorn.Server(config).serve()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tool_server")
    parser.add_argument("--port", type=int, required=True)
    for name in ("--api", "--sidecar", "--ca"):
        parser.add_argument(name, required=True)
    options: Any = parser.parse_args()
    asyncio.run(serve(options.port, options.api, options.sidecar, options.ca))


if __name__ == "__main__":
    main()
