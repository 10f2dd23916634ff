"""Measures how much later an injected pod is Ready on a real kubelet.

`python -m tests.cluster.measure_starts IMAGE [OLD_IMAGE] [--rounds N] [--at-once N]` asks the
cluster of KUBECONFIG, whose node has these images and nothing else of ours. Pods are made in
turn: plain, injected, and injected as commit 9d4a13e did it, with its image. What the webhook would
write is written beforehand, so admission is not in the figures. One line of JSON for each kind.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from controller.api.kinds import NAMESPACE, POD
from controller.api.objects import Key
from controller.cluster import Cluster
from demo.pki import CertificateAuthority
from tests.cluster.cluster import Cluster as Namespace
from tests.cluster.nodes import give_credential, started
from tests.manifests.rendering import kubectl
from tests.webhook.pods import NAMESPACE as SAMPLE_NAMESPACE
from tests.webhook.pods import injected, raw_settings, sidecar_of
from webhook.settings import check

Object = dict[str, Any]
_SERVER = "measured"
_READY = '{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}'
_SECONDS = 180.0


def kinds_of_pods(
    namespace: str, image: str, old_image: str | None, folder: Path
) -> dict[str, Object]:
    """A pod of each kind, without its name."""
    authority = CertificateAuthority.create("authserver")
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    url = "https://authserver.example.com:8443"
    raw = raw_settings(image=image, authserver={"url": url, "caFile": "ca.pem"})
    made = started("measured", "sleep 3600")
    made["metadata"]["annotations"]["tokenward.dev/server"] = _SERVER
    plain = json.loads(json.dumps(made))
    plain["metadata"]["annotations"] = {}
    own = json.dumps(injected(made, check(raw, folder))).replace(
        f"/ns/{SAMPLE_NAMESPACE}/", f"/ns/{namespace}/"
    )
    found = {"plain": plain, "injected": json.loads(own)}
    if old_image is not None:
        found["injected by 9d4a13e"] = _as_before(found["injected"], old_image)
    return found


def _as_before(made: Object, image: str) -> Object:
    """The sidecar's container as that commit's webhook wrote it."""
    old: Object = json.loads(json.dumps(made))
    container = sidecar_of(old)
    port = container["livenessProbe"]["httpGet"]["port"]
    probe = {"path": "/readyz", "port": port, "scheme": "HTTP"}
    del container["lifecycle"]
    container["image"] = image
    container["resources"]["limits"]["cpu"] = "200m"
    container["startupProbe"] = {
        "httpGet": probe, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 120,
    }  # fmt: skip
    return old


class Watch:
    """When each pod of a namespace was Ready."""

    def __init__(self) -> None:
        self._ready: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def follow(self, lines: asyncio.StreamReader) -> None:
        while line := (await lines.readline()).decode().split():
            if line[1:] == ["True"] and line[0] not in self._ready:
                self._ready[line[0]] = monotonic()
                self._changed.set()

    async def ready(self, name: str) -> float:
        async with asyncio.timeout(_SECONDS):
            while name not in self._ready:
                self._changed.clear()
                await self._changed.wait()
        return self._ready[name]


@asynccontextmanager
async def watching(namespace: str) -> AsyncIterator[Watch]:
    command = [kubectl(), "get", "pods", "-n", namespace, "-w", "-o", f"jsonpath={_READY}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    watch = Watch()
    follows = asyncio.create_task(watch.follow(process.stdout))
    try:
        yield watch
    finally:
        process.terminate()
        await process.wait()
        await follows


async def start(cluster: Cluster, watch: Watch, namespace: str, made: Object, name: str) -> float:
    """Seconds from the call that makes the pod until it is Ready."""
    meta = made["metadata"] | {"name": name, "namespace": namespace}
    begun = monotonic()
    await cluster.create(made | {"metadata": meta})
    return await watch.ready(name) - begun


async def remove(cluster: Cluster, namespace: str) -> None:
    """End every pod, and wait until the node has nothing more to do with them."""
    pods, _ = await cluster.list(POD, namespace)
    names = [one["metadata"]["name"] for one in pods]
    options = ("--grace-period=1", "--wait=true")
    command = [kubectl(), "delete", "pods", "-n", namespace, *names, *options]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    await process.wait()


async def measure(image: str, old_image: str | None, rounds: int, at_once: int) -> None:
    namespace = f"measure-starts-{os.getpid():x}"
    cluster = await Cluster.connect()
    meta = {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": namespace}}
    await cluster.create(meta)
    space = Namespace(namespace)
    space.give_account(namespace)
    give_credential(space, _SERVER, CertificateAuthority.create("workloads"))
    try:
        with tempfile.TemporaryDirectory() as folder:
            pods = kinds_of_pods(namespace, image, old_image, Path(folder))
        async with watching(namespace) as watch:
            single: dict[str, list[float]] = {kind: [] for kind in pods}
            for number in range(rounds):
                for index, (kind, made) in enumerate(pods.items()):
                    name = f"one-{number}-{index}"
                    single[kind].append(await start(cluster, watch, namespace, made, name))
                    await remove(cluster, namespace)
            for kind, seconds in single.items():
                _say(kind, "one at a time", seconds)
            for index, (kind, made) in enumerate(pods.items() if at_once else ()):
                many = [
                    start(cluster, watch, namespace, made, f"many-{index}-{n}")
                    for n in range(at_once)
                ]
                _say(kind, f"{at_once} at once", await asyncio.gather(*many))
                await remove(cluster, namespace)
    finally:
        found = await cluster.get(NAMESPACE, Key("", namespace))
        if found is not None:
            await cluster.delete(NAMESPACE, Key("", namespace), found["metadata"]["uid"])
        await cluster.close()


def _say(kind: str, how: str, seconds: list[float]) -> None:
    figures = {"median": median(seconds), "least": min(seconds), "most": max(seconds)}
    rounded = {name: round(value, 2) for name, value in figures.items()}
    print(json.dumps({"pods": kind, "how": how, "n": len(seconds), **rounded}), flush=True)  # noqa: T201


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m tests.cluster.measure_starts", description=__doc__)
    parser.add_argument("image")
    parser.add_argument("old_image", nargs="?")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=20)
    given = parser.parse_args()
    sys.exit(asyncio.run(measure(given.image, given.old_image, given.rounds, given.at_once)))
