"""Fetch a URL that a stranger named: public addresses only, no redirects, small and quick.

The decision falls on the address about to be connected: the connector's `socket_factory` sees
every one, also the literals that a resolver is never asked for, so a DNS answer that changes
between two looks gains nothing. Every fetch has a session of its own and leaves nothing behind.
"""

import errno
import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver

from authserver.oauth.parsing import Malformed, json_object
from authserver.upstream.contract import Unavailable
from authserver.upstream.trust import SYSTEM_TRUST, SystemTrust
from authserver.values import Value

Network = IPv4Network | IPv6Network

_SECONDS: Final = 3.0
_MAX_JSON_BYTES: Final = 64 * 1024
_JSON: Final = "application/json"

# Ways to write an IPv4 address in IPv6, each of which another party may unwrap: never needed.
_WRAPPING: Final = tuple(
    ip_network(text)
    for text in (
        "::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16",
        "fec0::/10",
    )
)  # fmt: skip


class AddressRefused(OSError):
    """The name led to an address that strangers may not make us call."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "address refused")


class TooLarge(Unavailable):
    """The answer is longer than may be read: asking again does not help."""


class Fetched(Value, frozen=True):
    """An answer of status 200."""

    media_type: str
    headers: Mapping[str, str]
    body: bytes


class SafeFetcher:
    """With `loopback` our own machine may be called too, for an authserver that lives on it."""

    def __init__(
        self,
        *,
        loopback: bool = False,
        denied: Iterable[str] = (),
        resolver: AbstractResolver | None = None,
        trust: SystemTrust = SYSTEM_TRUST,
    ) -> None:
        self._loopback, self._resolver, self._trust = loopback, resolver, trust
        self._denied: tuple[Network, ...] = tuple(ip_network(text) for text in denied)

    async def fetch(self, url: str, *, max_bytes: int) -> Fetched:
        """GET `url` once. Raises TooLarge beyond `max_bytes`, Unavailable for all but a 200."""
        connector = aiohttp.TCPConnector(
            force_close=True,
            socket_factory=self._socket,
            resolver=self._resolver,
            ssl=await self._trust.context(),
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=_SECONDS),
                    trust_env=False,
                    auto_decompress=False,
                    headers={"Accept": _JSON, "Accept-Encoding": "identity"},
                ) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                return await _read(answer, max_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise Unavailable("not_fetched") from None

    async def get(self, url: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON object, as `RemoteKeys` asks for them. Raises Unavailable."""
        fetched = await self.fetch(url, max_bytes=_MAX_JSON_BYTES)
        try:
            return 200, json_object(fetched.body)
        except Malformed:
            raise Unavailable("not_json") from None

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, sockaddr = address
        if not self.allows(str(sockaddr[0])):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    def allows(self, text: str) -> bool:
        """Whether an address may be connected to."""
        address = ip_address(text.partition("%")[0])
        if self._loopback and address.is_loopback:
            return True
        refused = (*_WRAPPING, *self._denied)
        return (
            address.is_global
            and not address.is_multicast
            and not any(address in network for network in refused)
        )


async def _read(answer: aiohttp.ClientResponse, max_bytes: int) -> Fetched:
    if answer.status != 200:
        raise Unavailable("not_200")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise Unavailable("encoded")
    body = b""
    async for part in answer.content.iter_chunked(max_bytes + 1):
        body += part
        if len(body) > max_bytes:
            raise TooLarge("too_large")
    return Fetched(answer.content_type, answer.headers, body)
