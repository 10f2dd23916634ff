"""Connections to APIs: one client for each host and set of CAs, made when a call first needs it."""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from sidecar.apis import Api

MAX_CLIENTS: Final = 64

_CONNECT_SECONDS: Final = 5.0
# Of answers: large heads with many links and cookies are common.
_LIMITS: Final = Limits(head_bytes=64 * 1024, fields=256, connections=256, idle_seconds=30.0)


class _Place(NamedTuple):
    """What connections may be shared for."""

    host: Host
    ca: str | None


class ApiClients:
    """Clients of at most `MAX_CLIENTS` places, the least recently used left out first.

    `context_for` makes a TLS context of a PEM bundle, or of the system's CAs for None; it is run
    off the event loop, once for each bundle.
    """

    def __init__(
        self, context_for: Callable[[str | None], ssl.SSLContext], proxy: Host | None
    ) -> None:
        self._context_for, self._proxy = context_for, proxy
        self._clients: OrderedDict[_Place, Client] = OrderedDict()
        self._contexts: OrderedDict[str | None, asyncio.Task[ssl.SSLContext]] = OrderedDict()

    def ready(self, api: Api) -> Client | None:
        """The client of an API that was called before."""
        place = _place(api.base_url, api.ca)
        client = self._clients.get(place)
        if client is not None:
            self._clients.move_to_end(place)
        return client

    async def prepare(self, api: Api) -> Client:
        """The client of an API, made where there is none. Raises NoAuthorities."""
        context = await self._context(api.ca)
        client = self.ready(api)
        if client is None:
            place = _place(api.base_url, api.ca)
            client = self._clients[place] = Client(
                place.host,
                context,
                limits=_LIMITS,
                connect_seconds=_CONNECT_SECONDS,
                proxy=self._proxy,
            )
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)[1].close()
        return client

    def close(self) -> None:
        """Close idle connections now, and the others with their response."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    async def _context(self, bundle: str | None) -> ssl.SSLContext:
        making = self._contexts.get(bundle)
        if making is None or (making.done() and making.exception() is not None):
            making = asyncio.create_task(asyncio.to_thread(self._context_for, bundle))
            self._contexts[bundle] = making
            if len(self._contexts) > MAX_CLIENTS:
                self._contexts.popitem(last=False)
        return await asyncio.shield(making)


@lru_cache(maxsize=MAX_CLIENTS)
def _place(base_url: str, ca: str | None) -> _Place:
    parts = urlsplit(base_url)
    assert parts.hostname is not None  # the reader of the exchange answer saw to it
    return _Place(Host(parts.hostname, parts.port or 443), ca)
