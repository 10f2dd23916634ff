"""A whole sidecar and a whole authserver in this process, and a way between them that can stall.

Clocks are the test's: the sidecar has a monotonic one and a wall clock, the authserver a wall
clock. What is real: TLS and certificates, sockets, SQLite, the upstream's tokens.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from demo.pki import write_credential
from sidecar.app import Sidecar, build
from sidecar.settings import read_settings
from sidecar.timeouts import DEFAULT, Timeouts
from tests.fakes.clock import ManualClock
from tests.resilience.tcp_proxy import StallableProxy
from tests.sidecar.harness import Reply, environment, listening
from tests.support.deployment import NOTES, Deployment, deployed
from tests.support.metric_values import value_of
from tests.support.workloads import NOTES_SERVER, UNLIMITED, forged

_PATIENCE_SECONDS: Final = 20.0

SPIFFE_ID: Final = "spiffe://example.org/ns/mcp-servers/mcpserver/notes"


@dataclass
class Pair:
    """Both processes, and what a test may do to them."""

    world: Deployment
    sidecar: Sidecar
    way: StallableProxy
    folder: Path
    port: int
    http: aiohttp.ClientSession
    clock: ManualClock
    wall: ManualClock

    async def ask(self, jwt: str, **body: Any) -> Reply:
        """What the MCP server asks for its user."""
        headers = {"Authorization": f"Bearer {jwt}", "X-Tokenward": "1"}
        url = f"http://127.0.0.1:{self.port}/v1/token"
        async with self.http.post(url, json=body, headers=headers) as answer:
            return Reply(answer.status, answer.headers, await answer.json(), await answer.read())

    async def ask_at_once(self, *jwts: str) -> list[Reply]:
        return await asyncio.gather(*(self.ask(jwt) for jwt in jwts))

    def like(self, jwt: str, count: int) -> list[str]:
        """JWTs of the same session that nobody has seen."""
        return [forged(self.world, jwt, jti=f"drill-{number}") for number in range(count)]

    def user_of(self, reply: Reply) -> str:
        """Whose upstream token came back."""
        assert reply.status == 200, reply.json
        return self.world.upstream.grants.bearer(reply.json["access_token"]).user.login

    def rotate(self) -> None:
        """Put a new certificate where the sidecar looks."""
        write_credential(self.folder / "credential", self.world.svid(NOTES_SERVER))

    def exchanges(self) -> float:
        """How many releases the authserver has made."""
        labels = {"upstream": "acme", "result": "stored"}
        name = "tokenward_authserver_releases_total"
        return self.world.server.registry.get_sample_value(name, labels) or 0.0

    def under_way(self) -> float:
        """How many exchanges the sidecar has begun and not ended."""
        registry = self.sidecar.registry
        begun = value_of(registry, "tokenward_sidecar_cache_total", result="miss")
        name = "tokenward_sidecar_exchange_duration_seconds_count"
        return begun - value_of(registry, name, result="ok")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let everything else run until `condition` holds."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0)


@asynccontextmanager
async def pair(folder: Path, *, timeouts: Timeouts = DEFAULT) -> AsyncIterator[Pair]:
    """Everything running, nobody signed in."""
    for name in ("authserver", "sidecar"):
        (folder / name).mkdir()
    own = folder / "sidecar"
    async with deployed(folder / "authserver", limits=_LIMITS) as world:
        (own / "authserver-ca.pem").write_bytes(world.server_ca.certificate_pem)
        write_credential(own / "credential", world.svid(NOTES_SERVER))
        port = urlsplit(world.internal_url).port
        assert port is not None
        async with StallableProxy(port) as way:
            variables = environment(
                own,
                f"https://127.0.0.1:{way.port}",
                SPIFFE_ID=SPIFFE_ID,
                RESOURCE=NOTES,
                ISSUER=world.issuer,
            )
            clock, wall = (
                ManualClock(),
                ManualClock(now=world.clock() + 120),
            )  # every certificate is ripe
            sidecar = build(read_settings(variables), now=clock, wall=wall, timeouts=timeouts)
            connector = aiohttp.TCPConnector(limit=0)
            async with (
                listening(sidecar) as local,
                aiohttp.ClientSession(connector=connector) as http,
            ):
                yield Pair(world, sidecar, way, own, local, http, clock, wall)


_LIMITS: Final = UNLIMITED | {"registrationsPerSourcePerMinute": 1000}
