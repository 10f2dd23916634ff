"""What the tests of the internal listener need beside a deployment: lines, forgeries, replicas."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
import yaml

from authserver.app import Authserver
from authserver.config.loader import load
from authserver.connections.timeouts import RefreshTimeouts
from authserver.internal.listener import LIMITS
from authserver.listener_tls import internal_material
from authserver.storage.audit_keys import AuditKeys
from authserver.storage.contract import Database
from authserver.storage.engines.open import open_database
from authserver.upstream.http_client import UpstreamHttp
from chassis.http1.connection import Connection
from chassis.http1.limits import Limits
from chassis.http1.listener import Listener
from chassis.http1.server import Server
from tests.support.deployment import Answer, Deployment
from tests.support.forged_tokens import changed, claims_of, header_of, private_key, signed

NOTES_SERVER, TASKS_SERVER = "mcp-servers/notes", "mcp-servers/tasks"
ROUTE = "/internal/token-exchange"
FORM = "application/x-www-form-urlencoded"
UNLIMITED = {
    "releasesPerWorkloadPerSecond": 100_000,
    "failedTokensPerWorkloadPerMinute": 100_000,
    "verificationsPerWorkloadPerSecond": 100_000,
}
DENIED = (400, {"error": "invalid_request"})


def form(jwt: str, **changes: str | None) -> dict[str, str]:
    """The fields of an exchange; a change to None leaves one out."""
    fields: dict[str, str | None] = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": jwt,
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def verdict(answer: Answer) -> tuple[int, dict[str, Any]]:
    """Status and body without `connect_url`, which differs each time and has tests of its own."""
    return answer.status, {
        name: value for name, value in answer.json().items() if name != "connect_url"
    }


def forged(world: Deployment, jwt: str, /, **claims: Any) -> str:
    """`jwt` with other claims, signed with the deployment's own key; None drops a claim."""
    return signed(
        changed(header_of(jwt), {}),
        changed(claims_of(jwt), claims),
        private_key(world.folder / "signing.pem"),
    )


@dataclass
class Line:
    """One live connection of a workload to the internal listener, used again for every request."""

    http: aiohttp.ClientSession
    url: str
    _created: list[None]

    @property
    def connections(self) -> int:
        """How many were opened so far: more than one after the server closed one."""
        return len(self._created)

    async def send(
        self,
        data: Any = None,
        *,
        method: str = "POST",
        path: str = ROUTE,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        async with self.http.request(
            method, f"{self.url}{path}", data=data, headers=headers, allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def exchange(self, jwt: str, **changes: str | None) -> Answer:
        return await self.send(form(jwt, **changes))


@asynccontextmanager
async def line(
    world: Deployment,
    tls: ssl.SSLContext | str = NOTES_SERVER,
    version: aiohttp.HttpVersion = aiohttp.HttpVersion11,
) -> AsyncIterator[Line]:
    """A connection with a client context, or with a fresh SVID of the workload named."""
    context = world.tls(world.svid(tls)) if isinstance(tls, str) else tls
    created: list[None] = []

    async def count(*_: object) -> None:
        created.append(None)

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(count)
    connector = aiohttp.TCPConnector(ssl=context, limit=1)
    async with aiohttp.ClientSession(
        connector=connector, version=version, trace_configs=[tracing]
    ) as http:
        yield Line(http, world.internal_url, created)


def reconfigure(world: Deployment, **changes: object) -> None:
    """What a replica started from now on is configured with."""
    file = world.folder / "authserver.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))


@asynccontextmanager
async def replica(
    world: Deployment,
    smuggled: bytes = b"",
    *,
    answer_within: float | None = None,
    limits: Limits = LIMITS,
    through: Callable[[Database], Database] = lambda database: database,
    refresh_timeouts: RefreshTimeouts | None = None,
) -> AsyncIterator[Deployment]:
    """A second authserver over the same database file, seen by sidecars only.

    Its listener cancels the handler of a caller that goes away, which is the harshest that may
    happen to a request; `answer_within` is how long it waits for an upstream, in seconds, and
    `through` what stands between it and its database. `smuggled` are CAs that it trusts beside
    those of its configuration, in PEM.
    """
    settings = load(world.folder / "authserver.yaml")
    tls, _ = internal_material(settings.listeners.internal).build()
    if smuggled:
        tls.load_verify_locations(cadata=smuggled.decode())
    async with AsyncExitStack() as stack:
        database = await open_database(settings.storage.url)
        stack.push_async_callback(database.close)
        limit = () if answer_within is None else (aiohttp.ClientTimeout(total=answer_within),)
        http = await stack.enter_async_context(UpstreamHttp(*limit))
        audit_key = await AuditKeys(database, settings.keyring()).key()
        server = Authserver(
            settings,
            through(database),
            http,
            world.clock,
            audit_key=audit_key,
            refresh_timeouts=refresh_timeouts or RefreshTimeouts(),
        )
        stack.push_async_callback(server.drain)
        internal = server.internal()
        impatient = _ImpatientServer(internal.answer, limits=limits, failed=internal.failed)
        bound = await Listener("internal", "127.0.0.1", 0, impatient, tls).bind(drain_seconds=60.0)
        stack.push_async_callback(bound.cleanup)
        yield replace(world, server=server, internal_url=f"https://127.0.0.1:{bound.port}")


class _ImpatientConnection(Connection):
    """Cancels the request of a caller that has gone away."""

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.cancel()


class _ImpatientServer(Server):
    def __call__(self) -> Connection:
        return _ImpatientConnection(self, asyncio.get_running_loop())


class AuditTrail:
    """The audit events of a test, as the fields that were logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog, self._before = caplog, len(caplog.records)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [
            getattr(record, "fields", {})
            for record in self._caplog.records[self._before :]
            if record.name == "tokenward.audit" and record.msg == "audit"
        ]

    @property
    def releases(self) -> list[dict[str, Any]]:
        """The events of the internal listener: releases and denials."""
        return [event for event in self.events if event["action"] == "release"]

    @property
    def reason(self) -> str:
        """Why the last denial was one."""
        return str(self.releases[-1].get("reason"))


@contextmanager
def audited(caplog: pytest.LogCaptureFixture) -> Iterator[AuditTrail]:
    with caplog.at_level("DEBUG", logger="tokenward"):
        yield AuditTrail(caplog)
