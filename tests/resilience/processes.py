"""Authserver and sidecar as processes that may be killed, an upstream, and two users."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from demo.layout import CLIENT_ID, Layout, plan
from demo.material import write_material
from demo.processes import READY_SECONDS
from demo.stack import sidecar_environment
from demo.upstream import FakeUpstream
from tests.bench.minting import Minter
from tests.bench.world import lift_limits, sign_in
from tests.chaos.surroundings import Child
from tests.sidecar.harness import Reply

USERS = ("alice", "bob")


@dataclass
class Stack:
    layout: Layout
    upstream: FakeUpstream
    authserver: Child
    sidecar: Child
    http: aiohttp.ClientSession
    jwts: dict[str, str] = field(default_factory=dict)

    def unseen(self, user: str) -> Iterator[str]:
        """JWTs of the same session that nobody has seen."""
        mint = Minter(self.jwts[user], self.layout.signing_key)
        while True:
            yield mint()

    async def ask(self, jwt: str, **body: Any) -> Reply:
        """What the MCP server asks for its user."""
        headers = {"Authorization": f"Bearer {jwt}", "X-Tokenward": "1"}
        url = f"{self.layout.servers[0].sidecar}/v1/token"
        async with self.http.post(url, json=body, headers=headers) as answer:
            return Reply(answer.status, answer.headers, await answer.json(), await answer.read())

    def user_of(self, reply: Reply) -> str:
        """Whose upstream token came back."""
        assert reply.status == 200, reply.json
        return self.upstream.grants.bearer(reply.json["access_token"]).user.login

    async def metric(self, name: str) -> float:
        """The authserver's, summed over its labels."""
        async with self.http.get(f"{self.layout.ops}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    async def ready(self, child: Child, ops: str) -> None:
        """Wait until `child` is ready."""
        async with asyncio.timeout(READY_SECONDS):
            while not await self._is_ready(ops):
                assert child.running, (child.folder / "log").read_text()
                await asyncio.sleep(0.02)

    async def _is_ready(self, ops: str) -> bool:
        try:
            async with self.http.get(f"{ops}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[Stack]:
    """Both processes ready, both users signed in, nothing asked yet."""
    layout = plan(folder, names=("notes",))
    write_material(layout)
    lift_limits(layout)
    upstream = FakeUpstream(
        client_id=CLIENT_ID,
        client_secret=layout.client_secret.read_text().strip(),
        redirect_uri=layout.callback,
        access_token_lifetime=3600,
    )
    server = layout.servers[0]
    authserver = Child("authserver", folder / "a", "authserver", "--config", str(layout.config))
    environment = sidecar_environment(layout, server)
    sidecar = Child("sidecar", folder / "s", "sidecar", env=environment)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        upstream.serve(port=layout.upstream_port),
        aiohttp.ClientSession(connector=connector) as http,
    ):
        found = Stack(layout, upstream, authserver, sidecar, http)
        try:
            await asyncio.gather(authserver.start(), sidecar.start())
            await found.ready(authserver, layout.ops)
            await found.ready(sidecar, server.ops)
            for user in USERS:
                found.jwts[user] = await sign_in(layout, server, user)
            yield found
        finally:
            await asyncio.gather(authserver.end(), sidecar.end())
