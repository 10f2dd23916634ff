"""How far does a sidecar grow that meets ever new JWTs? Its memory is bounded, so it must stop.

The authserver's part is taken by the bare mTLS handler, which releases the same token to every
JWT; the sidecar is a process of its own.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from demo.layout import HOST, Layout, Server, plan
from demo.material import write_material
from demo.processes import Processes
from demo.stack import sidecar_environment
from tests.bench.figures import Figure
from tests.bench.footprint import resident_megabytes
from tests.bench.load import drive, post
from tests.bench.world import pin, until_listening

JWTS: Final = 100_000
MAX_TOKENS: Final = 10_000  # that a sidecar may hold
_CONNECTIONS: Final = 16
_SECONDS: Final = 240.0
_RELEASE: Final = (
    b'{"access_token":"' + b"x" * 43 + b'","token_type":"Bearer","upstream":"acme",'
    b'"issued_token_type":"urn:ietf:params:oauth:token-type:access_token",'
    b'"expires_in":3599,"cache_ttl":60,"scope":"openid profile email"}'
)


@dataclass(frozen=True)
class Sidecar:
    """One sidecar process, and whatever is asked of it."""

    layout: Layout
    pid: int

    def megabytes(self) -> float:
        return resident_megabytes(self.pid)

    async def entries(self) -> int:
        return int(await metric(self.layout.servers[0], "tokenward_sidecar_cache_entries"))

    async def meet(self, jwts: Iterator[str]) -> None:
        """Ask for a token once per JWT. Raises LoadFailed if one call gets no token."""
        port = self.layout.servers[0].sidecar_port
        calls = (token_call(port, jwt) for jwt in jwts)
        await drive(HOST, port, calls, connections=_CONNECTIONS, seconds=_SECONDS)


@asynccontextmanager
async def busy_sidecar(folder: Path) -> AsyncIterator[Sidecar]:
    layout = plan(folder, names=("notes",))
    write_material(layout)
    server = layout.servers[0]
    body = folder / "release.json"
    body.write_bytes(_RELEASE)
    async with Processes(folder) as processes:
        await processes.start(
            "authserver",
            "tests.bench.bare",
            f"--port={layout.internal_port}",
            f"--body={body}",
            f"--tls={layout.server_credential}",
            f"--client-ca={layout.workload_ca}",
            "--uvloop",
        )
        await processes.start("sidecar", "sidecar", environment=sidecar_environment(layout, server))
        await processes.ready("sidecar", f"{server.ops}/readyz")
        await until_listening(layout.internal_port)
        yield Sidecar(layout, processes.pids[-1])


async def metric(server: Server, name: str) -> float:
    """One metric of a sidecar, by its name and labels."""
    async with aiohttp.ClientSession() as http, http.get(f"{server.ops}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line[len(name) :]) for line in lines if line.startswith(f"{name} "))


def token_call(port: int, jwt: str) -> bytes:
    """`POST /v1/token` as an MCP server sends it."""
    return post("/v1/token", b"{}", token_fields(port, jwt))


def token_fields(port: int, jwt: str) -> dict[str, str]:
    """The header fields of `token_call`."""
    return {
        "Host": f"{HOST}:{port}",
        "Authorization": f"Bearer {jwt}",
        "X-Tokenward": "1",
        "Content-Type": "application/json",
    }


def jwts(first: int, count: int, size: int = 900) -> Iterator[str]:
    """What has the shape of `count` different JWTs."""
    return (f"{number:012}.{'c' * size}.s" for number in range(first, first + count))


async def measure() -> list[Figure]:
    """Megabytes once memory is full, and after ten times as many JWTs as it holds."""
    with tempfile.TemporaryDirectory() as folder:
        async with busy_sidecar(Path(folder)) as sidecar:
            pin([sidecar.pid], core=0)
            await sidecar.meet(jwts(0, 100))
            begun = sidecar.megabytes()
            await sidecar.meet(jwts(100, MAX_TOKENS - 100))
            full = sidecar.megabytes()
            await sidecar.meet(jwts(MAX_TOKENS, JWTS - MAX_TOKENS))
            return [
                Figure(f"sidecar, RSS after {MAX_TOKENS:,} JWTs, beside 100", "MB", full, begun),
                Figure(
                    f"sidecar, RSS after {JWTS:,} JWTs, beside {MAX_TOKENS:,}",
                    "MB",
                    sidecar.megabytes(),
                    full,
                ),
                Figure(
                    f"sidecar, tokens held after {JWTS:,} JWTs, beside the bound",
                    "tokens",
                    await sidecar.entries(),
                    MAX_TOKENS,
                ),
            ]
