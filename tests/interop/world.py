"""Everything of one MCP server on loopback, each part in a process that a test may end.

The upstream runs in the test's own process, to end grants in.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from authserver.config.loader import load
from authserver.storage.engines.open import open_database
from authserver.storage.sessions import Sessions
from chassis import clock
from chassis.spiffe_id import Workload
from demo.layout import CLIENT_ID, NAMESPACE, SCOPE, Layout, Server, plan
from demo.material import write_material
from demo.pki import private_key_pem, write_private
from demo.processes import Processes
from demo.stack import start_authserver, start_mcp_server, start_sidecar
from demo.upstream import FakeUpstream
from tests.support.database_file import sql

AUTHSERVER, SIDECAR, MCP_SERVER = "authserver", "sidecar", "mcp"
PARTS = (AUTHSERVER, SIDECAR, MCP_SERVER)


@dataclass
class World:
    """What runs. `plan` names two workloads with credentials; the first one owns the server.

    `program` is the MCP server, `environment` what it has beside the sample server's.
    """

    layout: Layout
    upstream: FakeUpstream
    server: Server
    scopes: str = SCOPE
    program: str = "demo.mcp_server"
    environment: Mapping[str, str] = field(default_factory=dict)
    running: dict[str, AsyncExitStack] = field(default_factory=dict)

    @property
    def mcp_server(self) -> str:
        return self.server.resource

    async def start(self, *parts: str) -> None:
        for part in parts:
            processes = Processes(self.layout.folder)
            self.running[part] = AsyncExitStack()
            await self.running[part].enter_async_context(processes)
            name, probe = self._name_and_probe(part)
            match part:
                case "authserver":
                    await start_authserver(self.layout, processes)
                case "sidecar":
                    await start_sidecar(self.layout, self.server, processes, scopes=self.scopes)
                case _:
                    await start_mcp_server(
                        self.layout,
                        self.server,
                        processes,
                        scopes=self.scopes,
                        program=self.program,
                        environment=self.environment,
                    )
            await processes.ready(name, probe)

    def _name_and_probe(self, part: str) -> tuple[str, str]:
        match part:
            case "authserver":
                return part, f"{self.layout.ops}/readyz"
            case "sidecar":
                return f"sidecar-{self.server.name}", f"{self.server.ops}/readyz"
            case _:
                return f"mcp-{self.server.name}", self.server.probe

    async def stop(self, *parts: str) -> None:
        for part in parts:
            await self.running.pop(part).aclose()

    async def restart(self, *parts: str) -> None:
        await self.stop(*parts)
        await self.start(*parts)

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the authserver's configuration file."""
        configuration = yaml.safe_load(self.layout.config.read_text())
        change(configuration)
        self.layout.config.write_text(yaml.safe_dump(configuration, sort_keys=False))

    def new_signing_key(self, name: str) -> dict[str, str]:
        """A new signing key's entry of the configuration."""
        file = self.layout.folder / name
        write_private(file, private_key_pem(ec.generate_private_key(ec.SECP256R1())))
        return {"file": str(file), "algorithm": "ES256"}

    async def end_sessions(self) -> int:
        """End every session as another replica does after a revocation; how many there were."""
        settings = load(self.layout.config)
        database = await open_database(settings.storage.url, settings.storage.password)
        try:
            live = await sql(self.layout.folder, "SELECT tsid FROM sessions WHERE ended_at IS NULL")
            for (tsid,) in live:
                assert await Sessions(database).end(tsid, int(clock.wall()))
        finally:
            await database.close()
        return len(live)

    async def move_to_other_workload(self) -> None:
        """The same URL is served by another workload from now on."""
        other = self.layout.servers[1]
        await self.stop(*PARTS)
        self.server = replace(
            self.server,
            workload=Workload(NAMESPACE, other.name),
            credential=other.credential,
        )

        def hand_over(configuration: dict[str, Any]) -> None:
            configuration["resources"] = [configuration["resources"][0]]
            configuration["resources"][0]["workload"]["name"] = other.name

        self.configure(hand_over)
        await self.start(*PARTS)


@asynccontextmanager
async def world(
    folder: Path,
    access_token_lifetime: int,
    *,
    before: Callable[[World], None] = lambda _: None,
    behind_gateway: bool = False,
) -> AsyncIterator[World]:
    """`access_token_lifetime`: of the upstream's access tokens, in seconds.

    `before` may change what is started, before it is. `behind_gateway`: the server knows nothing of
    OAuth, and calls the upstream's API through Attach.
    """
    layout = plan(folder, (), behind_gateways=("plain",)) if behind_gateway else plan(folder)
    write_material(layout)
    upstream = FakeUpstream(
        client_id=CLIENT_ID,
        client_secret=layout.client_secret.read_text().removesuffix("\n"),
        redirect_uri=layout.callback,
        access_token_lifetime=access_token_lifetime,
    )
    here = World(layout, upstream, layout.servers[0])
    before(here)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(layout.api_credential / "tls.crt", layout.api_credential / "tls.key")
    async with (
        upstream.serve(port=layout.upstream_port),
        upstream.serve_api(port=layout.api_port, tls=tls),
    ):
        try:
            await here.start(*PARTS)
            yield here
        finally:
            await here.stop(*here.running)
