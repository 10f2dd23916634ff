"""One MCP client, run by the Python of its own environment.

For each line `CALL` it calls whoami and prints `RESULT <json>` or `ERROR <json text>`. Where a
browser is to go it prints `OPEN <url>`, and it may read `BACK <url>`, where the browser ended.
At a line `EXPIRE` it believes that its access token is over, and prints `RESULT null`.
What it stored at the first sign-in it keeps as long as it runs, over lost connections too. With
CLIENT_STORE it keeps it in that folder, and so do other processes.
"""

# mypy: ignore-errors
# This runs against other versions of the libraries than the ones that are type-checked here.

import asyncio
import json
import os
import sys
import time
import webbrowser
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

REDIRECT_URI = "http://127.0.0.1:33419/callback"

# Which tool to call, and with what; the servers of these tests have whoami.
# Where this module is imported, the arguments are another program's.
_GIVEN = sys.argv[3:] if __name__ == "__main__" else []
TOOL = _GIVEN[0] if _GIVEN else "whoami"
ARGUMENTS = json.loads(_GIVEN[1]) if len(_GIVEN) > 1 else {}


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


class Files:
    """The same in a folder that several processes share."""

    def __init__(self, folder):
        from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

        self._tokens = (folder / "tokens.json", OAuthToken)
        self._client = (folder / "client.json", OAuthClientInformationFull)

    async def get_tokens(self):
        return self._read(*self._tokens)

    async def set_tokens(self, tokens):
        self._tokens[0].write_text(tokens.model_dump_json())

    async def get_client_info(self):
        return self._read(*self._client)

    async def set_client_info(self, client):
        self._client[0].write_text(client.model_dump_json())

    @staticmethod
    def _read(file, kind):
        return kind.model_validate_json(file.read_text()) if file.exists() else None


def storage(folder):
    return Memory() if folder is None else Files(folder)


def say(word: str, what: str) -> None:
    print(word, what, flush=True)  # noqa: T201 - the line to the test


async def heard() -> str:
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def open_browser(address: str) -> None:
    say("OPEN", address)


async def came_back() -> dict[str, str]:
    return dict(parse_qsl(urlsplit((await heard()).removeprefix("BACK ")).query))


def official_1(url: str, folder: Path | None):
    """The official SDK, version 1."""
    from mcp import ClientSession
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.streamable_http import streamablehttp_client
    from mcp.shared.auth import OAuthClientMetadata

    async def back() -> tuple[str, str | None]:
        query = await came_back()
        return query["code"], query.get("state")

    metadata = OAuthClientMetadata(redirect_uris=[REDIRECT_URI], client_name="Official client 1")
    oauth = OAuthClientProvider(url, metadata, storage(folder), open_browser, back)

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

    return oauth, connected


def official_2(url: str, folder: Path | None):
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
        url, metadata, storage(folder), redirect_handler=open_browser, callback_handler=back
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

    return oauth, connected


def fastmcp(url: str, folder: Path | None):
    """FastMCP, which listens for the browser itself."""
    from fastmcp import Client
    from fastmcp.client.auth import OAuth
    from key_value.aio.stores.filetree import (
        FileTreeStore,
        FileTreeV1CollectionSanitizationStrategy,
        FileTreeV1KeySanitizationStrategy,
    )

    webbrowser.open = lambda address, *_: say("OPEN", address)
    store = folder and FileTreeStore(
        data_directory=folder,
        key_sanitization_strategy=FileTreeV1KeySanitizationStrategy(folder),
        collection_sanitization_strategy=FileTreeV1CollectionSanitizationStrategy(folder),
    )
    oauth = OAuth(url, token_storage=store)

    @asynccontextmanager
    async def connected():
        async with Client(url, auth=oauth) as client:

            async def call():
                result = await client.call_tool(TOOL, ARGUMENTS, raise_on_error=False)
                return result.is_error, result.structured_content, result.content

            yield call

    return oauth, connected


async def main(oauth, connected) -> None:
    line = await heard()
    while line:
        try:
            async with connected() as call:
                while line:
                    await _obey(line, oauth, call)
                    line = await heard()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reads it
            say("ERROR", json.dumps(_plain(error)))
            line = await heard()


async def _obey(line: str, oauth, call) -> None:
    if line == "EXPIRE":
        oauth.context.token_expiry_time = time.time() - 1  # noqa: TID251 - the SDK reads it
        say("RESULT", "null")
        return
    is_error, found, content = await call()
    text = " ".join(getattr(block, "text", "") for block in content)
    if is_error:
        say("ERROR", json.dumps(text))
    else:
        say("RESULT", json.dumps(text if found is None else found))


def _plain(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(_plain, error.exceptions))
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    kinds = {"official_1": official_1, "official_2": official_2, "fastmcp": fastmcp}
    store = os.environ.get("CLIENT_STORE")  # noqa: TID251 - set by driving.py
    asyncio.run(main(*kinds[sys.argv[1]](sys.argv[2], Path(store) if store else None)))
