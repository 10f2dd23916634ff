"""One MCP client, run by the Python of its own environment: sign in, call whoami, print it.

Talks to the test by lines: prints `OPEN <url>` where a browser is to go, reads the URL the
browser ended at, and prints `RESULT <json>`.
"""

# mypy: ignore-errors
# This runs against other versions of the libraries than the ones that are type-checked here.

import asyncio
import json
import sys
import webbrowser
from urllib.parse import parse_qsl, urlsplit

REDIRECT_URI = "http://127.0.0.1:33419/callback"


async def official_1(url: str) -> dict:
    """The official SDK, version 1."""
    from mcp import ClientSession
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.streamable_http import streamablehttp_client
    from mcp.shared.auth import OAuthClientMetadata

    class Memory:
        tokens = client = None

        async def get_tokens(self):
            return self.tokens

        async def set_tokens(self, tokens):
            self.tokens = tokens

        async def get_client_info(self):
            return self.client

        async def set_client_info(self, client):
            self.client = client

    async def open_browser(address: str) -> None:
        print("OPEN", address, flush=True)  # noqa: T201 - the line to the test

    async def back() -> tuple[str, str | None]:
        ended = await asyncio.to_thread(sys.stdin.readline)
        query = dict(parse_qsl(urlsplit(ended.strip()).query))
        return query["code"], query.get("state")

    oauth = OAuthClientProvider(
        url,
        OAuthClientMetadata(redirect_uris=[REDIRECT_URI], client_name="Official client, version 1"),
        Memory(),
        open_browser,
        back,
    )
    async with (
        streamablehttp_client(url, auth=oauth) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        return (await session.call_tool("whoami", {})).structuredContent


async def fastmcp(url: str) -> dict:
    """FastMCP, which listens for the browser itself."""
    from fastmcp import Client

    def open_browser(address: str, *_) -> None:
        print("OPEN", address, flush=True)  # noqa: T201 - the line to the test

    webbrowser.open = open_browser
    async with Client(url, auth="oauth") as client:
        return (await client.call_tool("whoami", {})).structured_content


if __name__ == "__main__":
    run = {"official_1": official_1, "fastmcp": fastmcp}[sys.argv[1]]
    print("RESULT", json.dumps(asyncio.run(run(sys.argv[2]))), flush=True)  # noqa: T201
