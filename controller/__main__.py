"""`python -m controller --config FILE`: run a replica of the controller until a signal."""

import argparse
import asyncio
import random
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from chassis import clock, logs, probes, process
from chassis.http1.listener import Listener
from chassis.http1_probes import ops_server
from controller.api.kinds import Kind
from controller.app import Controller
from controller.cluster import ApiError, Cluster, NoCluster
from controller.followed_settings import FollowedSettings
from controller.map_probe import HttpMapProbe
from controller.metrics import Metrics
from controller.settings import Settings
from controller.start_checks import OldSchema, check_schemas, pod_certificates_of

_DRAIN_SECONDS: Final = 5.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m controller", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parsed = parser.parse_args(arguments)
    logs.configure("controller")
    process.main(partial(serve, parsed.config))


async def serve(config: Path) -> None:
    """Reconcile until a signal."""
    followed = FollowedSettings(config)
    logs.configure("controller", followed.current.log_level)
    try:
        cluster = await Cluster.connect()
    except NoCluster as missing:
        raise process.StartFailed(str(missing)) from None
    try:
        await _run(followed, cluster, await _check(cluster))
    finally:
        await cluster.close()


async def _check(cluster: Cluster) -> Kind | None:
    """The kind of PodCertificateRequests that is served, if there is one. Raises StartFailed."""
    try:
        await check_schemas(cluster)
        return await pod_certificates_of(cluster)
    except (OldSchema, ApiError) as problem:
        raise process.StartFailed(str(problem)) from None


async def _run(followed: FollowedSettings, cluster: Cluster, pod_certificates: Kind | None) -> None:
    registry, readiness = probes.new_registry(), probes.Readiness("listening", "synced")
    metrics, probe, chance = Metrics(registry), HttpMapProbe(), random.SystemRandom()
    identity = f"{socket.gethostname()}_{chance.getrandbits(64):016x}"

    async def control(settings: Settings) -> None:
        logs.configure("controller", settings.log_level)
        controller = Controller(
            settings,
            cluster,
            metrics,
            probe,
            identity=identity,
            now=_now,
            monotonic=monotonic,
            random=chance.random,
            pod_certificates=pod_certificates,
        )
        await controller.run(lambda: readiness.satisfy("synced"))

    ops = followed.current.listeners.ops
    work = asyncio.create_task(followed.run(control))
    served = asyncio.create_task(
        process.serve(
            [],
            ops=Listener("ops", ops.host, ops.port, ops_server(readiness, registry)),
            readiness=readiness,
            drain_seconds=_DRAIN_SECONDS,
        )
    )
    try:
        # Whichever ends first ends the other: a controller that fails must not look alive.
        await asyncio.wait({work, served}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (work, served):
            task.cancel()
        results = await asyncio.gather(work, served, return_exceptions=True)
        await probe.close()
    for result in results:
        if isinstance(result, Exception):
            raise result


def _now() -> datetime:
    return datetime.fromtimestamp(clock.wall(), UTC)


if __name__ == "__main__":
    main()
