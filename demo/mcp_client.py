"""A headless MCP client: the official SDK does the OAuth, a `Browser` does what its user would.

The user allows the request on the authserver's consent page and signs in at the fake upstream.
"""

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from demo.browser import Browser, Hop, Page, shown

# Nothing listens here: the browser hands over instead of following (see Browser.leave_at).
REDIRECT_URI: Final = "http://127.0.0.1:33418/callback"


class SignInFailed(Exception):
    """The browser did not come back with a code; the text says where it stopped."""


class ToolFailed(Exception):
    """The MCP server's tool answered with an error; the text is what it said."""


@dataclass
class Memory:
    """Where the SDK keeps what belongs to one user."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """A user at their browser: allows what the client asks for and knows their password."""

    def __init__(self, browser: Browser, username: str, password: str) -> None:
        self._browser, self._username, self._password = browser, username, password
        self._back: Page | None = None

    async def follow(self, authorization_url: str) -> None:
        """Consent, sign in, and end at the client's redirect URI."""
        consent = await self._browser.open(authorization_url)
        page = await self._browser.submit(consent, press=("decision", "allow"))
        if page.status is not None:
            credentials = {"username": self._username, "password": self._password}
            page = await self._browser.submit(page, credentials)
        self._back = page

    async def answer(self) -> AuthorizationCodeResult:
        """What the redirect URI was called with; raises SignInFailed without a code."""
        if self._back is None or self._back.status is not None:
            raise SignInFailed(f"stopped at {shown(self._back.url) if self._back else 'nowhere'}")
        query = self._back.query
        if "code" not in query:
            raise SignInFailed(f"refused: {query.get('error', 'no code')}")
        return AuthorizationCodeResult(
            code=query["code"], state=query.get("state"), iss=query.get("iss")
        )


@dataclass(frozen=True)
class Connection:
    """An MCP client's connection to one MCP server, in one user's name."""

    client: Client
    jwt: str

    async def whoami(self) -> dict[str, Any]:
        """The account the MCP server acts as; raises ToolFailed when it cannot."""
        result = await self.client.call_tool("whoami", {})
        if result.is_error or result.structured_content is None:
            raise ToolFailed(" ".join(getattr(block, "text", "") for block in result.content))
        account: dict[str, Any] = result.structured_content
        return account


@asynccontextmanager
async def connect(
    server_url: str, jwt: str, on_hop: Callable[[Hop], None] = lambda _: None
) -> AsyncIterator[Connection]:
    """Connect with a JWT already had. Its calls run side by side; the SDK's OAuth queues them."""
    async with (
        _http(on_hop, headers={"Authorization": f"Bearer {jwt}"}) as http,
        Client(streamable_http_client(server_url, http_client=http)) as client,
    ):
        yield Connection(client, jwt)


@asynccontextmanager
async def sign_in(
    server_url: str, *, username: str, password: str, on_hop: Callable[[Hop], None]
) -> AsyncIterator[Connection]:
    """Connect to the MCP server as this user; `on_hop` hears of every request as it is answered."""
    memory = Memory()
    async with Browser(leave_at=REDIRECT_URI, on_hop=on_hop) as browser:
        person = Person(browser, username, password)
        oauth = OAuthClientProvider(
            server_url,
            OAuthClientMetadata(
                redirect_uris=[AnyUrl(REDIRECT_URI)], client_name="Tokenward demo client"
            ),
            memory,
            redirect_handler=person.follow,
            callback_handler=person.answer,
        )
        async with (
            _http(on_hop, auth=oauth) as http,
            Client(streamable_http_client(server_url, http_client=http)) as client,
        ):
            assert memory.tokens is not None, "connecting has signed the user in"
            yield Connection(client, memory.tokens.access_token)


def _http(
    on_hop: Callable[[Hop], None],
    *,
    auth: httpx2.Auth | None = None,
    headers: dict[str, str] | None = None,
) -> httpx2.AsyncClient:
    """An HTTP client that reports each answer; the environment's proxies are not for loopback."""

    async def begin(request: httpx2.Request) -> None:
        request.extensions["begun"] = time.perf_counter()

    async def end(response: httpx2.Response) -> None:
        request = response.request
        seconds = time.perf_counter() - request.extensions["begun"]
        on_hop(Hop(request.method, shown(str(request.url)), response.status_code, seconds))

    return httpx2.AsyncClient(
        auth=auth,
        headers=headers,
        event_hooks={"request": [begin], "response": [end]},
        trust_env=False,
        verify=ssl.create_default_context(),  # SSL_CERT_FILE adds an authority
        timeout=30,
    )
