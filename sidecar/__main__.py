# ruff: noqa: TID251 - the environment is cleaned before the first import that reads it
"""`python -m sidecar`: reads the environment, and runs the sidecar that `app` builds of it."""

import os

from sidecar.hardening import scrub_environment, uses_host_network

if __name__ == "__main__":
    scrub_environment(os.environ)

import asyncio
import gc

from aiohttp import web

from chassis import listeners, logs, process
from chassis.probes import ops_server
from sidecar.app import Sidecar, build, local_listener, tick_forever
from sidecar.settings import read_settings
from sidecar.timeouts import DRAIN_SECONDS


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
    ticking = asyncio.create_task(tick_forever(sidecar))
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


def _ops(sidecar: Sidecar) -> web.Server:
    return ops_server(sidecar.readiness, sidecar.registry)


if __name__ == "__main__":
    process.main(main)
