"""The warm connections to the authserver that belong to one credential."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

# Fewer than the authserver's own idle limit, so that it is us who close, never in mid-request.
_IDLE_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 3.0
_MAX_CONNECTIONS: Final = 32


class ConnectionPool:
    """Connections made with the credential of `generation`; once retired, no new exchange."""

    def __init__(self, context: ssl.SSLContext, generation: int) -> None:
        self.generation = generation
        self._users = 0
        self._retired = False
        # Spelled out although most are defaults: no proxy, no redirect, no cookie, no unpacking.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=context, limit=_MAX_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            trust_env=False,
            auto_decompress=False,
            raise_for_status=False,
        )

    @asynccontextmanager
    async def post(
        self, url: str, form: bytes, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; an answer that was not read to its end costs the connection."""
        self._users += 1
        try:
            async with self._session.post(
                url, data=form, headers=headers, allow_redirects=False
            ) as response:
                yield response
        finally:
            self._users -= 1
            if self._retired and not self._users:
                await self._session.close()

    async def retire(self) -> None:
        """Close now, or as soon as the exchanges under way have ended."""
        self._retired = True
        if not self._users:
            await self._session.close()

    async def close(self) -> None:
        await self._session.close()
