"""A whole sidecar on free ports, in this process, against a fake authserver over real mTLS."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from chassis.http1.listener import Listener
from chassis.tls.contexts import KeyPair
from demo.pki import CertificateAuthority, Issued, write_credential
from sidecar.app import Sidecar, build
from sidecar.settings import read_settings
from sidecar.timeouts import DEFAULT, Timeouts
from tests.fakes.authserver import FakeAuthserver
from tests.fakes.clock import ManualClock
from tests.support.metric_values import value_of

SPIFFE_ID = "spiffe://example.org/ns/mcp-servers/mcpserver/github"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
OTHER_JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJib2IifQ.c2lnbmF0dXJl"
CALL = {"Authorization": f"Bearer {JWT}", "X-Tokenward": "1", "Content-Type": "application/json"}


@dataclass(frozen=True)
class Authorities:
    """One CA for the authserver, another for workloads."""

    server: CertificateAuthority
    workloads: CertificateAuthority

    @classmethod
    def create(cls) -> "Authorities":
        return cls(CertificateAuthority.create("servers"), CertificateAuthority.create("workloads"))


@dataclass
class Reply:
    """An answer of the local API."""

    status: int
    headers: Mapping[str, str]
    json: Any
    raw: bytes


@dataclass
class Harness:
    """Everything a test may touch."""

    sidecar: Sidecar
    authserver: FakeAuthserver
    authorities: Authorities
    folder: Path
    port: int
    http: aiohttp.ClientSession
    clock: ManualClock
    wall: ManualClock = field(default_factory=ManualClock)

    async def ask(
        self,
        body: Any = None,
        *,
        jwt: str = JWT,
        method: str = "POST",
        path: str = "/v1/token",
        headers: Mapping[str, str | None] | None = None,
        data: bytes | None = None,
    ) -> Reply:
        """Call the local API as an honest program would, except for what a test changes."""
        sent = {**CALL, "Authorization": f"Bearer {jwt}"} | dict(headers or {})
        present = {name: value for name, value in sent.items() if value is not None}
        payload = {"json": {} if body is None else body} if data is None else {"data": data}
        if method == "GET":
            payload = {}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.http.request(method, url, headers=present, **payload) as response:
            raw = await response.read()
            parsed = await response.json() if raw else None
            return Reply(response.status, response.headers, parsed, raw)

    async def send(self, raw: bytes) -> bytes:
        """Bytes exactly as given, and all that comes back until the sidecar closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(raw)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let everything else run until `condition` holds; the test's time limit is the limit."""
        while not condition():
            await asyncio.sleep(0)

    def metric(self, name: str, **labels: str) -> float:
        return value_of(self.sidecar.registry, name, **labels)

    def write_credential(self, spiffe_id: str = SPIFFE_ID) -> str:
        """Put a fresh certificate where the sidecar looks; returns its serial number."""
        issued = self.authorities.workloads.issue_svid(spiffe_id)
        write_credential(self.folder / "credential", issued)
        return serial_of(issued.certificate_pem)


def serial_of(pem: bytes) -> str:
    from cryptography.x509 import load_pem_x509_certificate

    serial = f"{load_pem_x509_certificate(pem).serial_number:X}"
    return serial if len(serial) % 2 == 0 else f"0{serial}"


def environment(folder: Path, authserver_url: str, **changes: str) -> dict[str, str]:
    """The variables of a sidecar whose files lie in `folder`."""
    return {
        "TOKENWARD_AUTHSERVER_URL": authserver_url,
        "TOKENWARD_AUTHSERVER_CA_FILE": str(folder / "authserver-ca.pem"),
        "TOKENWARD_CREDENTIAL_DIR": str(folder / "credential"),
        "TOKENWARD_SPIFFE_ID": SPIFFE_ID,
        "TOKENWARD_RESOURCE": "https://github-mcp.example.com/mcp",
        "TOKENWARD_ISSUER": "https://auth.example.com",
        "TOKENWARD_SCOPES": "mcp offline_access",
        "TOKENWARD_PORT": "0",
        "TOKENWARD_OPS_PORT": "0",
    } | {f"TOKENWARD_{name}": value for name, value in changes.items()}


async def restart(authserver: FakeAuthserver, folder: Path) -> None:
    """Listen again, on the same port and with the same files."""
    await authserver.stop()
    await authserver.start(KeyPair.in_directory(folder / "server"), folder / "workloads-ca.pem")


@asynccontextmanager
async def fake_authserver(
    folder: Path, authorities: Authorities, certificate: Issued | None = None
) -> AsyncIterator[FakeAuthserver]:
    """A fake that trusts the workloads' CA, and whose own CA lies where the sidecar looks."""
    write_credential(folder / "server", certificate or authorities.server.issue_server())
    (folder / "authserver-ca.pem").write_bytes(authorities.server.certificate_pem)
    (folder / "workloads-ca.pem").write_bytes(authorities.workloads.certificate_pem)
    authserver = FakeAuthserver()
    await restart(authserver, folder)
    try:
        yield authserver
    finally:
        await authserver.stop()


@asynccontextmanager
async def listening(sidecar: Sidecar) -> AsyncIterator[int]:
    """Serve the local API on a free port."""
    bound = await Listener("local", "127.0.0.1", 0, sidecar.local).bind(0.5)
    try:
        yield bound.port
    finally:
        await bound.cleanup()
        await sidecar.close()


@asynccontextmanager
async def harness(
    folder: Path,
    authorities: Authorities,
    *,
    credential: bool = True,
    server_certificate: Issued | None = None,
    timeouts: Timeouts = DEFAULT,
    **changes: str,
) -> AsyncIterator[Harness]:
    """A sidecar with its certificate in place, unless a test withholds it."""
    async with fake_authserver(folder, authorities, server_certificate) as authserver:
        if credential:
            issued = authorities.workloads.issue_svid(SPIFFE_ID)
            write_credential(folder / "credential", issued)
        # Some minutes ahead, so that a renewed certificate need not be waited for.
        clock, wall = ManualClock(), ManualClock(now=datetime.now(UTC).timestamp() + 300)
        settings = read_settings(environment(folder, authserver.url, **changes))
        sidecar = build(settings, now=clock, wall=wall, timeouts=timeouts, jitter=lambda: 0.0)
        async with listening(sidecar) as port, _http() as http:
            yield Harness(sidecar, authserver, authorities, folder, port, http, clock, wall)


def _http() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
