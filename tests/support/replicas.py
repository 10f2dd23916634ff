"""A second authserver over the same storage, reached through a public listener of its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from authserver.app import Authserver
from authserver.config.loader import load
from authserver.storage.audit_keys import AuditKeys
from authserver.storage.engines.open import open_database
from authserver.upstream.http_client import UpstreamHttp
from tests.support.deployment import Answer, Deployment


@dataclass
class Replica(Deployment):
    """The same issuer, other socket: requests go to `url`, what is said stays the issuer's."""

    url: str = ""

    async def call(self, method: str, path: str, **options: object) -> Answer:
        url = path.replace(self.issuer, self.url) if path.startswith("http") else self.url + path
        return await super().call(method, url, **options)


@asynccontextmanager
async def second_replica(world: Deployment) -> AsyncIterator[Replica]:
    async with AsyncExitStack() as stack:
        settings = load(world.folder / "authserver.yaml")
        database = await open_database(settings.storage.url)
        stack.push_async_callback(database.close)
        http = await stack.enter_async_context(UpstreamHttp())
        audit_key = await AuditKeys(database, settings.keyring()).key()
        server = Authserver(settings, database, http, world.clock, audit_key=audit_key)
        stack.push_async_callback(server.drain)
        runner = web.AppRunner(server.public(), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield Replica(**(vars(world) | {"server": server}), url=url)
