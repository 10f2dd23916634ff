"""One MCP client, run by the Python of its own environment.

For each line `CALL` it calls whoami and prints `RESULT <json>` or `ERROR <json text>`. Where a
browser is to go it prints `OPEN <url>`, and it may read `BACK <url>`, where the browser ended.
What it stored at the first sign-in it keeps as long as it runs, over lost connections too.
"""

# mypy: ignore-errors
# This runs against other versions of the libraries than the ones that are type-checked here.

import asyncio
import json
import sys
import webbrowser
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

REDIRECT_URI = "http://127.0.0.1:33419/callback"

# Which tool to call, and with what; the servers of these tests have whoami.
TOOL = sys.argv[3] if len(sys.argv) > 3 else "whoami"
ARGUMENTS = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}


class Memory:
    """Where an official SDK keeps tokens and registration."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


def say(word: str, what: str) -> None:
    print(word, what, flush=True)  # noqa: T201 - the line to the test


async def heard() -> str:
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def open_browser(address: str) -> None:
    say("OPEN", address)


async def came_back() -> dict[str, str]:
    return dict(parse_qsl(urlsplit((await heard()).removeprefix("BACK ")).query))


def official_1(url: str):
    """The official SDK, version 1."""
    from mcp import ClientSession
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.streamable_http import streamablehttp_client
    from mcp.shared.auth import OAuthClientMetadata

    async def back() -> tuple[str, str | None]:
        query = await came_back()
        return query["code"], query.get("state")

    metadata = OAuthClientMetadata(redirect_uris=[REDIRECT_URI], client_name="Official client 1")
    oauth = OAuthClientProvider(url, metadata, Memory(), open_browser, back)

    @asynccontextmanager
    async def connected():
        async with (
            streamablehttp_client(url, auth=oauth) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()

            async def call():
                result = await session.call_tool(TOOL, ARGUMENTS)
                return result.isError, result.structuredContent, result.content

            yield call

    return connected


def official_2(url: str):
    """The official SDK, version 2."""
    import httpx2
    from mcp import Client
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

    async def back() -> AuthorizationCodeResult:
        query = await came_back()
        return AuthorizationCodeResult(
            code=query["code"], state=query.get("state"), iss=query.get("iss")
        )

    metadata = OAuthClientMetadata(redirect_uris=[REDIRECT_URI], client_name="Official client 2")
    oauth = OAuthClientProvider(
        url, metadata, Memory(), redirect_handler=open_browser, callback_handler=back
    )

    @asynccontextmanager
    async def connected():
        async with (
            httpx2.AsyncClient(auth=oauth, trust_env=False, timeout=30) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):

            async def call():
                result = await client.call_tool(TOOL, ARGUMENTS)
                return result.is_error, result.structured_content, result.content

            yield call

    return connected


def fastmcp(url: str):
    """FastMCP, which listens for the browser itself."""
    from fastmcp import Client
    from fastmcp.client.auth import OAuth

    webbrowser.open = lambda address, *_: say("OPEN", address)
    oauth = OAuth(url)

    @asynccontextmanager
    async def connected():
        async with Client(url, auth=oauth) as client:

            async def call():
                result = await client.call_tool(TOOL, ARGUMENTS, raise_on_error=False)
                return result.is_error, result.structured_content, result.content

            yield call

    return connected


async def main(connected) -> None:
    line = await heard()
    while line:
        try:
            async with connected() as call:
                while line:
                    is_error, found, content = await call()
                    text = " ".join(getattr(block, "text", "") for block in content)
                    if is_error:
                        say("ERROR", json.dumps(text))
                    else:
                        say("RESULT", json.dumps(text if found is None else found))
                    line = await heard()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reads it
            say("ERROR", json.dumps(_plain(error)))
            line = await heard()


def _plain(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(_plain, error.exceptions))
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    kinds = {"official_1": official_1, "official_2": official_2, "fastmcp": fastmcp}
    asyncio.run(main(kinds[sys.argv[1]](sys.argv[2])))
