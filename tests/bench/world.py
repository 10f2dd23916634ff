"""The processes that are measured, and a user's JWT to call them with."""

import asyncio
import os
import secrets
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from yarl import URL

from demo.browser import Browser
from demo.layout import HOST, Layout, Server, plan
from demo.material import write_material
from demo.processes import Processes
from demo.stack import sidecar_environment, start_upstream
from tests.support.deployment import CALLBACK, Pkce, walk

_UPSTREAM_TOKEN_SECONDS: Final = 3600


@dataclass(frozen=True)
class World:
    layout: Layout
    processes: Processes
    jwt: str

    @property
    def server(self) -> Server:
        return self.layout.servers[0]

    def workload_tls(self) -> ssl.SSLContext:
        """The first sidecar's side of mTLS, for calling the authserver directly."""
        return workload_tls(self.layout.server_ca, self.server.credential)


def workload_tls(server_ca: Path, credential: Path) -> ssl.SSLContext:
    """A sidecar's side of mTLS, with the certificate and key in `credential`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(server_ca)
    context.check_hostname = False  # the load generator connects by address
    context.load_cert_chain(credential / "tls.crt", credential / "tls.key")
    return context


@asynccontextmanager
async def running(
    folder: Path,
    storage: dict[str, object] | None = None,
    *,
    workloads: tuple[str, ...] = ("notes", "other"),
    prepare: Callable[[Layout], None] = lambda _: None,
) -> AsyncIterator[World]:
    """Upstream, authserver and one sidecar, each as its own process on the first core.

    `storage` replaces the configuration's section; SQLite without it. `prepare` may change the
    files before anything starts.
    """
    layout = plan(folder, workloads)
    write_material(layout)
    lift_limits(layout, storage)
    prepare(layout)
    with _logs() as logs:
        async with Processes(logs) as processes:
            await start_upstream(layout, processes, token_seconds=_UPSTREAM_TOKEN_SECONDS)
            await processes.start("authserver", "authserver", "--config", str(layout.config))
            server = layout.servers[0]
            await processes.start(
                "sidecar", "sidecar", environment=sidecar_environment(layout, server)
            )
            await processes.ready("authserver", f"{layout.ops}/readyz")
            await processes.ready("sidecar", f"{server.ops}/readyz")
            await processes.ready("upstream", f"{layout.upstream}/.well-known/openid-configuration")
            pin(processes.pids, core=0)
            yield World(layout, processes, await sign_in(layout, server))


@contextmanager
def _logs() -> Iterator[Path]:
    """In memory, where there is a place: a container writes to a pipe and waits for no disk."""
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as folder:
        yield Path(folder)


async def until_listening(port: int) -> None:
    """For a listener that answers nobody without a certificate; 10 seconds at most."""
    async with asyncio.timeout(10):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return
            await asyncio.sleep(0.02)


def pin(pids: list[int], *, core: int) -> None:
    """Keep measured processes off the load generator's core, where there are two."""
    if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity"):
        for pid in pids:
            os.sched_setaffinity(pid, {core})


def lift_limits(layout: Layout, storage: dict[str, object] | None = None) -> None:
    configuration = yaml.safe_load(layout.config.read_text())
    configuration["storage"] = storage or configuration["storage"]
    configuration["limits"] = {
        "releasesPerWorkloadPerSecond": 1_000_000,
        "failedTokensPerWorkloadPerMinute": 1_000_000,
        "verificationsPerWorkloadPerSecond": 1_000_000,
        "signInsPerSourcePerMinute": 1_000_000,
        "registrationsPerSourcePerMinute": 1_000,
        "tokenRequestsPerClientAndSourcePerMinute": 1_000_000,
        "connectionsPerSource": 1_000,
    }
    configuration["logLevel"] = "warning"
    layout.config.write_text(yaml.safe_dump(configuration))


async def sign_in(layout: Layout, server: Server, user: str = "alice") -> str:
    """The JWT of a client of its own."""
    pkce = Pkce()
    async with aiohttp.ClientSession() as http, Browser(leave_at=CALLBACK) as browser:
        registered = await _post(
            http,
            f"{layout.issuer}/oauth/register",
            json={"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"},
        )
        query = URL(f"{layout.issuer}/oauth/authorize").with_query(
            response_type="code",
            client_id=registered["client_id"],
            redirect_uri=CALLBACK,
            resource=server.resource,
            code_challenge=pkce.challenge,
            code_challenge_method="S256",
            state=secrets.token_hex(4),
        )
        answer = await walk(browser, str(query), user)
        tokens = await _post(
            http,
            f"{layout.issuer}/oauth/token",
            data={
                "grant_type": "authorization_code",
                "client_id": registered["client_id"],
                "code": answer["code"],
                "redirect_uri": CALLBACK,
                "code_verifier": pkce.verifier,
            },
        )
        return str(tokens["access_token"])


async def _post(http: aiohttp.ClientSession, url: str, **options: Any) -> dict[str, Any]:
    async with http.post(url, **options) as answer:
        answer.raise_for_status()
        found = await answer.json()
        assert isinstance(found, dict)
        return found
