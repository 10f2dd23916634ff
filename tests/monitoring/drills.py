"""What causes each alert. A drill is a trouble that lasts for its block and is mended after it."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from chassis import clock
from demo.pki import CertificateAuthority, write_private
from demo.upstream.app import Interference
from tests.monitoring.api_server import reviews
from tests.monitoring.scene import TOKEN_SECONDS, World

Trouble = Callable[[World], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Drill:
    """`alerts` must fire; `may` also may, because the same trouble has two sides."""

    title: str
    alerts: tuple[str, ...]
    trouble: Trouble
    may: tuple[str, ...] = ()


DRILLS: list[Drill] = []


def drill(
    title: str, *alerts: str, may: tuple[str, ...] = ()
) -> Callable[[Callable[[World], AsyncIterator[None]]], Trouble]:
    """Register a generator as the drill of these alerts."""

    def register(function: Callable[[World], AsyncIterator[None]]) -> Trouble:
        trouble = asynccontextmanager(function)
        DRILLS.append(
            Drill(
                title,
                tuple(f"Tokenward{name}" for name in alerts),
                trouble,
                tuple(f"Tokenward{name}" for name in may),
            )
        )
        return trouble

    return register


@asynccontextmanager
async def _beside(work: Callable[[], Any]) -> AsyncIterator[None]:
    """Do `work` again and again until the end of the block."""

    async def forever() -> None:
        while True:
            await work()

    task = asyncio.create_task(forever())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _other_content(file: Path, content: bytes) -> AsyncIterator[None]:
    before = file.read_bytes()
    write_private(file, content)
    try:
        yield
    finally:
        write_private(file, before)


async def _database(world: World, statement: str, *arguments: bytes) -> sqlite3.Connection:
    """The authserver's database, after this statement, which may have to wait for its turn."""

    def open_and_execute() -> sqlite3.Connection:
        database = sqlite3.connect(
            world.layout.database, timeout=30, isolation_level=None, check_same_thread=False
        )
        database.execute(statement, arguments)
        return database

    # On a thread: the controller and the upstream live in this process's event loop.
    return await asyncio.to_thread(open_and_execute)


async def _changed(world: World, statement: str, *arguments: bytes) -> None:
    (await _database(world, statement, *arguments)).close()


@drill("a sidecar's process stands still", "TargetDown")
async def _stopped(world: World) -> AsyncIterator[None]:
    pid = world.processes.pid_of("sidecar-other")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@drill("the webhook's certificate is not renewed", "WebhookCertificateEnding")
async def _webhook_certificate(world: World) -> AsyncIterator[None]:
    world.certify_webhook(timedelta(days=1))
    yield
    world.certify_webhook()


@drill("a replica of the webhook has a fault", "WebhookFailing")
async def _webhook_fails(world: World) -> AsyncIterator[None]:
    async def post() -> None:
        await world.api_server.post(reviews()[0], world.webhook_replica.url)
        await asyncio.sleep(0.2)

    world.webhook_replica.broken = True
    async with _beside(post):
        yield
    world.webhook_replica.broken = False


@drill("somebody writes a faulty webhook configuration", "WebhookConfigurationRefused")
async def _webhook_configuration(world: World) -> AsyncIterator[None]:
    file = world.folder / "webhook.yaml"
    async with _other_content(file, file.read_bytes() + b"surprise: true\n"):
        yield


@drill("the API server has a wrong caBundle", "WebhookUnreachable")
async def _wrong_ca(world: World) -> AsyncIterator[None]:
    right = world.api_server.ca
    wrong = world.folder / "wrong-ca.pem"
    wrong.write_bytes(CertificateAuthority.create("another").certificate_pem)
    world.api_server.ca = wrong
    yield
    world.api_server.ca = right


@drill(
    "the webhook's CPU is throttled under large reviews", "WebhookSlow", may=("WebhookUnreachable",)
)
async def _slow_webhook(world: World) -> AsyncIterator[None]:
    pid = world.processes.pid_of("webhook")
    bodies = reviews(ballast=700_000)

    async def throttle() -> None:
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.6)
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(0.15)

    async def post() -> None:
        await asyncio.gather(*(world.api_server.post(bodies[0]) for _ in range(4)))

    try:
        async with _beside(post), _beside(throttle):
            yield
    finally:
        os.kill(pid, signal.SIGCONT)


@drill("the authserver's certificate is not renewed", "AuthserverCertificateEnding")
async def _authserver_certificate(world: World) -> AsyncIterator[None]:
    world.certify_authserver(timedelta(days=1))
    yield
    world.certify_authserver()


@drill("a certificate file is written that is none", "CredentialRefused")
async def _broken_certificate(world: World) -> AsyncIterator[None]:
    async with _other_content(world.layout.server_credential / "tls.crt", b"nothing of use\n"):
        yield


@drill("a CA of the bundle expires", "ClientCAExpired")
async def _expired_ca(world: World) -> AsyncIterator[None]:
    old = CertificateAuthority.create("old", now=datetime.now(UTC) - timedelta(days=2))
    file = world.layout.workload_ca
    async with _other_content(file, file.read_bytes() + old.certificate_pem):
        yield


@drill("somebody writes a faulty authserver configuration", "AuthserverConfigurationRefused")
async def _authserver_configuration(world: World) -> AsyncIterator[None]:
    file = world.layout.config
    async with _other_content(file, file.read_bytes() + b"surprise: true\n"):
        yield


@drill(
    "another process holds the database",
    "StorageDown",
    may=("SignInsFailing", "UpstreamRefreshFailing"),
)
async def _locked_database(world: World) -> AsyncIterator[None]:
    """A configuration that is changed meanwhile is no faulty one."""

    async def ask() -> None:
        server = world.server("notes")
        await world.exchange(server.credential, world.jwts["notes", "alice"])
        await asyncio.sleep(0.5)

    database = await _database(world, "BEGIN IMMEDIATE")
    try:
        async with _beside(ask):  # a sidecar asks more seldom, once its token is over
            yield
    finally:
        database.execute("ROLLBACK")
        database.close()


@drill("nobody reads the log any more", "AuditLost")
async def _no_log(world: World) -> AsyncIterator[None]:
    world.log.pause()
    try:
        yield
    finally:
        world.log.resume()


@drill("a stored token is damaged", "SealedRecordsUnreadable")
async def _damaged_record(world: World) -> AsyncIterator[None]:
    await _changed(
        world,
        "UPDATE connections SET sealed_tokens = ?, generation = generation + 1000"
        " WHERE owner_name = 'notes'",
        b"k1 nothing of use",
    )
    yield
    for user in ("alice", "bob"):
        await world.sign_in("notes", user)


@drill("a workload is turned away", "WorkloadRefused", "RevocationFeedDown")
async def _denied_workload(world: World) -> AsyncIterator[None]:
    denied = {"spiffeIds": [world.server("notes").spiffe_id]}
    world.configure(deniedCertificates=denied)
    yield
    world.configure(deniedCertificates={})


class _Busy(Interference):
    """An upstream that refuses without acting."""

    async def before(self, request: web.Request, refresh_token: str) -> None:
        raise web.HTTPServiceUnavailable


@drill("an upstream is down", "UpstreamRefreshFailing")
async def _upstream_down(world: World) -> AsyncIterator[None]:
    world.upstream.interference = _Busy()
    yield
    world.upstream.interference = Interference()


@drill("an upstream ends the grants of many users", "GrantsEnding")
async def _grants_end(world: World) -> AsyncIterator[None]:
    """Users sign in again and again, and each time the next refresh is the end."""

    async def end() -> None:
        for name, user in list(world.jwts):
            if name != "other":
                await world.sign_in(name, user)
        for user in ("alice", "bob"):
            world.upstream.grants.end(user, access_tokens_too=False)
        await asyncio.sleep(TOKEN_SECONDS + 2)

    async with _beside(end):
        yield
    for name, user in list(world.jwts):
        await world.sign_in(name, user)


@drill(
    "our client's secret at an upstream was changed there",
    "SignInsFailing",
    "UpstreamRefreshFailing",
)
async def _other_secret(world: World) -> AsyncIterator[None]:
    upstream = world.upstream
    right = upstream._client
    upstream._client = type(right)(right.id, "another")
    yield
    upstream._client = right


class _KeepsGrants(Interference):
    """An upstream whose revocation endpoint is down."""

    async def before_revocation(self) -> None:
        raise web.HTTPServiceUnavailable


@drill("an upstream revokes nothing", "UpstreamRevocationsPending")
async def _revocations_pending(world: World) -> AsyncIterator[None]:
    """The sessions of a server are ended; two hours ago, as the database has it."""

    async def end() -> None:
        # Earlier drills left sessions that nobody here knows, and each holds its connection.
        await world.end_sessions("other")
        two_hours = "UPDATE upstream_revocations SET queued_at = queued_at - 7200"
        await _changed(world, f"{two_hours} WHERE queued_at > {int(clock.wall()) - 3600}")
        await asyncio.sleep(5)

    world.upstream.interference = _KeepsGrants()
    async with _beside(end):
        yield
    world.upstream.interference = Interference()
    # The pauses have grown, and nobody need wait for them here.
    await _changed(world, "UPDATE upstream_revocations SET next_at = 0")


@drill("a sidecar's certificate is not renewed", "CredentialEnding")
async def _sidecar_certificate(world: World) -> AsyncIterator[None]:
    world.certify_sidecar("notes", timedelta(minutes=30))
    yield
    world.certify_sidecar("notes")


@drill("a sidecar is asked with JWTs of another server", "SidecarDoesNotFit")
async def _other_resource(world: World) -> AsyncIterator[None]:
    async def ask() -> None:
        await world.ask_sidecar("other", world.jwts["notes", "alice"])
        await asyncio.sleep(0.3)

    async with _beside(ask):
        yield


@drill("no controller can renew the lease", "ControllerWithoutLeader")
async def _no_leader(world: World) -> AsyncIterator[None]:
    world.controller.refused = {"Lease"}
    yield
    world.controller.refused = set()


@drill("the last controller is gone", "ControllerWithoutLeader", "TargetDown")
async def _no_controller(world: World) -> AsyncIterator[None]:
    await world.controller.stop()
    yield
    await world.controller.start()


@drill("the API server refuses what the controller writes", "ControllerFailing")
async def _controller_fails(world: World) -> AsyncIterator[None]:
    world.controller.refused = {"ConfigMap"}

    async def more() -> None:
        world.controller.new_server()
        await asyncio.sleep(1)

    async with _beside(more):
        yield
    world.controller.refused = set()


@drill(
    "a workload's certificate cannot be written",
    "WorkloadCertificateNotRenewed",
    may=("ControllerFailing",),
)
async def _certificate_not_renewed(world: World) -> AsyncIterator[None]:
    """Issued 21 hours ago for 24 hours; since then the API server refuses its Secret."""
    world.controller.behind = timedelta(hours=21)
    await world.controller.certified(world.controller.new_server())
    world.controller.refused = {"Secret"}
    world.controller.behind = timedelta(0)
    yield
    world.controller.refused = set()
    # A new leader looks at every Secret, as it does when the time of its renewal comes.
    await world.controller.stop()
    await world.controller.start()
