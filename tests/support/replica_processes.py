"""Two authservers on one PostgreSQL, as processes that may be killed, and whoever calls them.

Sign-ins are written to storage as they are stored: the pages are not what is tested here.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from authserver.config.loader import load
from authserver.handles import new_handle
from authserver.storage.contract import Database
from authserver.storage.engines.open import open_database
from authserver.storage.records import Grant, Session, UpstreamTokens
from authserver.tokens.access_tokens import AccessTokens
from authserver.tokens.signing_keys import SigningKeys, load_signing_key
from chassis import clock
from chassis.spiffe_id import Workload
from demo.layout import _free_ports
from demo.pki import CertificateAuthority, write_credential
from demo.processes import READY_SECONDS
from demo.upstream import USERS, FakeUpstream
from demo.upstream.grants import Tokens
from tests.chaos.surroundings import Child
from tests.support.deployment import TRUST_DOMAIN, configuration_of, write_material
from tests.support.postgresql import PostgresqlServer
from tests.support.storage_fixtures import Store

NAMESPACE: Final = "mcp-servers"
# In each refresh, so that an upstream can tell by which replica it is asked.
REPLICA_PARAMETER: Final = "replica"
_DAY: Final = 86400
_JWT_SECONDS: Final = 3600


@dataclass(frozen=True)
class SignedIn:
    """A session of one user at one upstream, and what the upstream gave at the sign-in."""

    session: Session
    jwt: str
    given: Tokens


class ReplicaProcesses:
    """Both replicas' configuration and storage; the processes are `children`, not started yet."""

    def __init__(self, folder: Path, postgresql: PostgresqlServer) -> None:
        self.folder, self._postgresql = folder, postgresql
        self.ports = _free_ports()
        self._public = [next(self.ports), next(self.ports)]
        self.internal = [next(self.ports), next(self.ports)]
        self._ops = [next(self.ports), next(self.ports)]
        self.issuer = f"http://127.0.0.1:{self._public[0]}"
        self.children: list[Child] = []
        self.database: Database
        self._store: Store
        self._tokens: AccessTokens

    async def prepare(
        self,
        upstreams: Mapping[str, str],
        resources: Sequence[Mapping[str, object]] | None = None,
        *,
        module: str = "authserver",
    ) -> None:
        """Write material and configuration, and open the storage.

        `upstreams` are issuers by name. `resources` are entries of the configuration's member.
        `module` is run with the configuration file and a folder of the replica's own.
        """
        self.servers, self.workloads = (
            CertificateAuthority.create(name) for name in ("servers", "workloads")
        )
        write_material(self.folder, self.servers, self.workloads)
        (self.folder / "ca.pem").write_bytes(self.servers.certificate_pem)
        url = await self._postgresql.create_database()
        for number in range(2):
            self._configure(number, url, upstreams, resources)
            self.children.append(self._child(number, module))
        settings = load(self._file(0))
        self.database = await open_database(url, settings.storage.password)
        self._store = Store(self.database, keyring=settings.keyring())
        keys = SigningKeys([load_signing_key(k.file, k.algorithm) for k in settings.signing_keys])
        self._tokens = AccessTokens(settings.issuer, keys, _JWT_SECONDS)

    def _child(self, number: int, module: str) -> Child:
        own, file = self.folder / f"r{number}", str(self._file(number))
        arguments = ["--config", file] if module == "authserver" else [file, str(own)]
        return Child(f"replica-{number}", own, module, *arguments)

    def _file(self, number: int) -> Path:
        return self.folder / f"replica-{number}.yaml"

    def _configure(
        self,
        number: int,
        url: str,
        upstreams: Mapping[str, str],
        resources: Sequence[Mapping[str, object]] | None,
    ) -> None:
        members: Any = configuration_of(self.folder, self.issuer, "")
        for listener, ports in (
            ("public", self._public), ("internal", self.internal), ("ops", self._ops)
        ):  # fmt: skip
            members["listeners"][listener]["port"] = ports[number]
        usual = members["upstreams"][0]
        members["upstreams"] = [
            usual
            | {
                "name": name,
                "issuer": issuer,
                "refreshParameters": {REPLICA_PARAMETER: str(number)},
            }
            for name, issuer in upstreams.items()
        ]
        if resources is not None:
            members["resources"] = list(resources)
        password = str(self._postgresql.password_file)
        members["storage"] = {"url": url, "passwordFile": password, "replicas": 2}
        members["limits"] = {
            "releasesPerWorkloadPerSecond": 100_000,
            "failedTokensPerWorkloadPerMinute": 100_000,
            "verificationsPerWorkloadPerSecond": 100_000,
        }
        self._file(number).write_text(yaml.safe_dump(members))

    async def ready(self) -> None:
        """Wait until both answer."""
        async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession() as http:
            for child, port in zip(self.children, self._ops, strict=True):
                while not await _is_ready(http, port):
                    assert child.running, (child.folder / "log").read_text()
                    await asyncio.sleep(0.05)

    async def end(self) -> None:
        for child in self.children:
            await child.end()
        await self.database.close()

    def svid(self, name: str) -> Path:
        """The folder of a workload's certificate, made where there is none."""
        folder = self.folder / name
        if not folder.exists():
            spiffe_id = f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/mcpserver/{name}"
            write_credential(folder, self.workloads.issue_svid(spiffe_id))
        return folder

    @asynccontextmanager
    async def caller(self, name: str) -> AsyncIterator[aiohttp.ClientSession]:
        """Connections of this workload."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        folder = self.svid(name)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=30),
        ) as http:
            yield http

    async def exchange(
        self, http: aiohttp.ClientSession, replica: int, jwt: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and body of one token exchange; (0, {}) where no answer came."""
        fields = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": jwt,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
        url = f"https://127.0.0.1:{self.internal[replica]}/internal/token-exchange"
        try:
            async with http.post(url, data=fields) as answer:
                return answer.status, await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, {}

    async def signed_in(
        self,
        upstream: FakeUpstream,
        subject: str,
        *,
        name: str = "acme",
        resource: str,
        workload: str = "notes",
        age: int = 0,
    ) -> SignedIn:
        """A user who signed in `age` seconds ago. Raises StorageUnavailable."""
        now, lifetime = int(clock.wall()), upstream.grants.access_token_lifetime
        given = upstream.grants.grant(USERS["alice"])
        kept = UpstreamTokens(
            given.access_token, given.refresh_token, None, now - age, now - age + lifetime
        )
        session, _ = await self._store.sign_in(
            Grant(name, upstream.issuer, subject, kept),
            created_at=now,
            expires_at=now + _DAY,
            resource=resource,
            owner=Workload(NAMESPACE, workload),
        )
        return SignedIn(session, self._tokens.mint(session, jti=new_handle(), now=now), given)


async def _is_ready(http: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
