"""Builds a sidecar from its settings, and does its periodic work; the only wiring."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from chassis import clock, logs
from chassis.clock import Clock
from chassis.http1.listener import Listener
from chassis.http1.server import Server
from chassis.metric_families import Registry
from chassis.probes import Readiness
from chassis.process_metrics import ProcessMetrics
from sidecar.broker import Broker
from sidecar.client_credential import CREDENTIAL, OwnCredential
from sidecar.clocks import Clocks
from sidecar.exchange_client import ExchangeClient
from sidecar.local_api import LocalApi
from sidecar.local_server import local_server
from sidecar.metrics import Metrics
from sidecar.pending_challenges import PendingChallenges
from sidecar.protected_resource import ProtectedResource
from sidecar.retry import random_fraction
from sidecar.revocation_listener import RevocationListener
from sidecar.settings import Settings
from sidecar.timeouts import DEFAULT, Timeouts
from sidecar.token_source import TokenSource
from sidecar.unverified_jwt import ExpectedClaims

if TYPE_CHECKING:
    from sidecar.attach.door import AttachDoor
    from sidecar.gateway.app import GatewayParts

HOUSEKEEPING_SECONDS: Final = 2.0

_log = logs.Log("main")


class Sidecar(NamedTuple):
    """One sidecar, put together and not yet listening."""

    local: Server
    api: LocalApi
    readiness: Readiness
    registry: Registry
    credential: OwnCredential
    client: ExchangeClient
    broker: Broker
    revocations: RevocationListener
    gateway: "GatewayParts | None" = None

    async def tick(self) -> None:
        """What has to be done every few seconds, whether or not anybody calls."""
        self.credential.poll()
        self.broker.sweep()
        self.client.renew()
        if self.api.attach is not None:
            self.api.attach.sweep()
        if self.gateway is not None:
            self.gateway.tick()

    async def close(self) -> None:
        if self.gateway is not None:
            self.gateway.close()
        self.broker.cancel_all()
        self.client.close()
        self.revocations.close()
        if self.api.attach is not None:
            self.api.attach.close()


def build(
    settings: Settings,
    *,
    now: Clock = time.monotonic,
    wall: Clock = clock.wall,
    timeouts: Timeouts = DEFAULT,
    jitter: Callable[[], float] = random_fraction,
) -> Sidecar:
    """Build a sidecar inside a running loop.

    `now` is monotonic and times what we hold; `wall` is Unix time and judges certificates.
    """
    readiness, metrics = Readiness("listening", CREDENTIAL), Metrics()
    registry = Registry(ProcessMetrics(), metrics)
    credential = OwnCredential(
        settings.credential,
        settings.authserver_ca,
        settings.spiffe_id,
        readiness=readiness,
        metrics=metrics,
        wall=wall,
    )
    clocks = Clocks(now, wall, lambda: CREDENTIAL not in readiness.missing)
    client = ExchangeClient(
        settings.authserver_url,
        credential,
        metrics,
        clocks,
        now=now,
        jitter=jitter,
        total_seconds=timeouts.exchange,
    )
    broker = Broker(
        client.exchange,
        ttl_max=settings.cache_ttl_max,
        now=now,
        metrics=metrics,
        wait_seconds=timeouts.wait,
    )
    revocations = RevocationListener(
        settings.authserver_url, credential, broker, metrics, now=now, jitter=jitter
    )
    resource = ProtectedResource(settings.resource, settings.issuer, settings.scopes)
    expected = ExpectedClaims(resource.issuer, resource.resource)
    pending = PendingChallenges(now) if settings.gateway is not None else None
    tokens = TokenSource(broker, expected, clocks, metrics, now=now, pending=pending)

    def open_attach() -> "AttachDoor":
        # What this imports costs memory that most sidecars need not spend.
        from chassis.tls.web_client import web_client_context
        from sidecar.attach.api_clients import ApiClients
        from sidecar.attach.door import AttachDoor

        clients = ApiClients(web_client_context, settings.api_proxy)
        return AttachDoor(tokens, clients, resource, metrics, now=now, timeouts=timeouts)

    api = LocalApi(tokens, resource, metrics, now=now, open_attach=open_attach)
    loop = asyncio.get_running_loop()
    local = local_server(
        api,
        timeouts=timeouts,
        wall=wall,
        on_drain=lambda: loop.call_later(timeouts.shutdown, broker.cancel_all),
    )
    gateway = None
    if settings.gateway is not None and pending is not None:
        from sidecar.gateway.app import build_gateway  # few pods have one, and pay for it

        gateway = build_gateway(
            settings.gateway, tokens, pending, resource, metrics, clocks,
            now=now, wall=wall, timeouts=timeouts, feed_heard=lambda: revocations.heard_at,
        )  # fmt: skip
        revocations.follow(gateway.streams)
    return Sidecar(
        local, api, readiness, registry, credential, client, broker, revocations, gateway
    )


def local_listener(sidecar: Sidecar, port: int) -> Listener:
    return Listener("local", "127.0.0.1", port, sidecar.local, loopback_only=True)


def listeners(sidecar: Sidecar, port: int) -> list[Listener]:
    """Every listener but the ops one; `port` is the local API's."""
    local = local_listener(sidecar, port)
    return [local] if sidecar.gateway is None else [local, sidecar.gateway.listener]


async def tick_forever(sidecar: Sidecar) -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            await sidecar.tick()
        except Exception as bug:  # noqa: BLE001 - without this task certificates would run out
            _log.failure("housekeeping_failed", bug)


async def listen_forever(sidecar: Sidecar) -> None:
    """Follow the revocation feed."""
    while True:
        try:
            await sidecar.revocations.run()
        except Exception as bug:  # noqa: BLE001 - without this task no revocation would be heard
            _log.failure("revocation_listener_failed", bug)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
