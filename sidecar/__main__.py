# ruff: noqa: TID251 - the environment is cleaned before the first import that reads it
"""`python -m sidecar`: reads the environment, and runs the sidecar that `app` builds of it."""

import gc
import os

from sidecar.hardening import scrub_environment, uses_host_network

if __name__ == "__main__":
    scrub_environment(os.environ)
    gc.disable()  # `process.main` enables it: what is imported until then does not become garbage

import asyncio

from chassis import logs, process
from chassis.http1.listener import Listener
from chassis.http1_probes import ops_server
from sidecar.app import build, listen_forever, listeners, tick_forever
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
    ops = ops_server(sidecar.readiness, sidecar.registry)
    # What lives as long as the process need not be looked at by every garbage collection.
    gc.freeze()
    background = [
        asyncio.create_task(work) for work in (tick_forever(sidecar), listen_forever(sidecar))
    ]
    try:
        await process.serve(
            listeners(sidecar, settings.port),
            ops=Listener("ops", settings.ops_host, settings.ops_port, ops),
            readiness=sidecar.readiness,
            drain_seconds=DRAIN_SECONDS,
        )
    finally:
        for task in background:
            task.cancel()
        await sidecar.close()
    if not sidecar.credential.generation:
        # An exit code of 0 would keep our last lines out of the pod's status.
        raise process.StartFailed("this sidecar ended before it had a certificate; see above")


if __name__ == "__main__":
    process.main(main)
