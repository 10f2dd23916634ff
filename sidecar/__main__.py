# ruff: noqa: TID251 - the environment is cleaned before the first import that reads it
"""`python -m sidecar`: builds everything from the environment and runs it; the only wiring."""

import os

from sidecar.hardening import scrub_environment, uses_host_network

if __name__ == "__main__":
    scrub_environment(os.environ)

import asyncio
import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from chassis import clock, listeners, logs, process
from chassis.clock import Clock
from chassis.probes import Readiness, new_registry, ops_server
from sidecar.broker import Broker
from sidecar.client_credential import CREDENTIAL, OwnCredential
from sidecar.exchange_client import ExchangeClient
from sidecar.local_api import LocalApi
from sidecar.local_server import LocalServer
from sidecar.metrics import Metrics
from sidecar.protected_resource import ProtectedResource
from sidecar.settings import Settings, read_settings
from sidecar.timeouts import DEFAULT, DRAIN_SECONDS, Timeouts

HOUSEKEEPING_SECONDS: Final = 2.0

_log = logs.Log("main")


@dataclass(frozen=True)
class Sidecar:
    """One sidecar, put together and not yet listening."""

    local: LocalServer
    readiness: Readiness
    registry: CollectorRegistry
    credential: OwnCredential
    client: ExchangeClient
    broker: Broker

    async def tick(self) -> None:
        """What has to be done every few seconds, whether or not anybody calls."""
        self.credential.poll()
        self.local.close_stalled()
        self.broker.sweep()
        await self.client.renew()

    async def close(self) -> None:
        self.broker.cancel_all()
        await self.client.close()


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
    client = ExchangeClient(
        settings.authserver_url,
        credential,
        metrics,
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
    api = LocalApi(broker, resource, metrics, now=now, wall=wall, body_seconds=timeouts.body)
    loop = asyncio.get_running_loop()
    local = LocalServer(
        api.answer,
        api.failed,
        now=now,
        head_seconds=timeouts.head,
        on_drain=lambda: loop.call_later(timeouts.shutdown, broker.cancel_all),
    )
    return Sidecar(local, readiness, registry, credential, client, broker)


async def main() -> None:
    """The life of the process."""
    logs.configure("sidecar")
    settings = read_settings(os.environ)
    logs.configure("sidecar", settings.log_level)
    if uses_host_network(os.environ):
        raise process.StartFailed(
            "this pod uses its node's network: others would reach our loopback"
        )
    sidecar = build(settings)
    # What lives as long as the process need not be looked at by every garbage collection.
    gc.freeze()
    ticking = asyncio.create_task(_tick_forever(sidecar))
    try:
        await process.serve(
            [local_listener(sidecar, settings.port)],
            ops=listeners.Listener("ops", "::", settings.ops_port, _ops(sidecar)),
            readiness=sidecar.readiness,
            drain_seconds=DRAIN_SECONDS,
        )
    finally:
        ticking.cancel()
        await sidecar.close()


def local_listener(sidecar: Sidecar, port: int) -> listeners.Listener:
    return listeners.Listener("local", "127.0.0.1", port, sidecar.local, loopback_only=True)


def _ops(sidecar: Sidecar) -> web.Server:
    return ops_server(sidecar.readiness, sidecar.registry)


async def _tick_forever(sidecar: Sidecar) -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            await sidecar.tick()
        except Exception as bug:  # noqa: BLE001 - without this task certificates would run out
            _log.failure("housekeeping_failed", bug)


if __name__ == "__main__":
    process.main(main)
