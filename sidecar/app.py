"""Builds a sidecar from its settings, and does its periodic work; the only wiring."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry

from chassis import clock, logs
from chassis.clock import Clock
from chassis.http1.listener import Listener
from chassis.http1.server import Server
from chassis.probes import Readiness, new_registry
from sidecar.broker import Broker
from sidecar.client_credential import CREDENTIAL, OwnCredential
from sidecar.clocks import Clocks
from sidecar.exchange_client import ExchangeClient
from sidecar.local_api import LocalApi
from sidecar.local_server import local_server
from sidecar.metrics import Metrics
from sidecar.protected_resource import ProtectedResource
from sidecar.settings import Settings
from sidecar.timeouts import DEFAULT, Timeouts

HOUSEKEEPING_SECONDS: Final = 2.0

_log = logs.Log("main")


@dataclass(frozen=True)
class Sidecar:
    """One sidecar, put together and not yet listening."""

    local: Server
    readiness: Readiness
    registry: CollectorRegistry
    credential: OwnCredential
    client: ExchangeClient
    broker: Broker

    async def tick(self) -> None:
        """What has to be done every few seconds, whether or not anybody calls."""
        self.credential.poll()
        self.broker.sweep()
        self.client.renew()

    async def close(self) -> None:
        self.broker.cancel_all()
        self.client.close()


def build(
    settings: Settings,
    *,
    now: Clock = time.monotonic,
    wall: Clock = clock.wall,
    timeouts: Timeouts = DEFAULT,
    jitter: Callable[[], float] = random.random,
) -> Sidecar:
    """Build a sidecar inside a running loop.

    `now` is monotonic and times what we hold; `wall` is Unix time and judges certificates.
    """
    readiness, registry = Readiness("listening", CREDENTIAL), new_registry()
    metrics = Metrics(registry)
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
    resource = ProtectedResource(settings.resource, settings.issuer, settings.scopes)
    api = LocalApi(broker, resource, metrics, clocks, now=now)
    loop = asyncio.get_running_loop()
    local = local_server(
        api,
        timeouts=timeouts,
        wall=wall,
        on_drain=lambda: loop.call_later(timeouts.shutdown, broker.cancel_all),
    )
    return Sidecar(local, readiness, registry, credential, client, broker)


def local_listener(sidecar: Sidecar, port: int) -> Listener:
    return Listener("local", "127.0.0.1", port, sidecar.local, loopback_only=True)


async def tick_forever(sidecar: Sidecar) -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            await sidecar.tick()
        except Exception as bug:  # noqa: BLE001 - without this task certificates would run out
            _log.failure("housekeeping_failed", bug)
