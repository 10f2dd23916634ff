"""Measures a controller against a real API server: `python -m tests.cluster.measure_controller N`.

Needs KUBECONFIG; the custom resource definitions are applied. N MCPServerAuths are made, then a
controller is started, and has to make all of them Ready. An authserver's pod is played by this
process: it shows the map as it is in the cluster. Afterwards a bare loop makes the same writes with
the same client and concurrency: a Secret, two statuses and an event for each object.

CPU seconds are of the one process, the API server's are in neither. With `--source PodCertificate`
there are no Secrets. Memory is compared with a process that holds the same objects as dicts.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, process_time

import yaml
from aiohttp import web

from controller.api.kinds import CONFIG_MAP, EVENT, MCP_SERVER_AUTH, NAMESPACE, POD, SECRET
from controller.api.objects import Key
from controller.cluster import Cluster
from controller.reconcile import resource_map
from tests.cluster import cluster as by_kubectl
from tests.cluster.controller import SIDECAR, apply_crds, auth_server, server_auth

_ROOT = Path(__file__).parents[2]
WORKERS = 8
_ADDRESS = "127.77.0.2"  # of the pod that this process plays


async def all_of(work: Iterable[Callable[[], Awaitable[object]]], at_once: int = WORKERS) -> None:
    limit = asyncio.Semaphore(at_once)

    async def one(make: Callable[[], Awaitable[object]]) -> None:
        async with limit:
            await make()

    await asyncio.gather(*(one(make) for make in work))


async def prepare(cluster: Cluster, system: str, tenant: str, count: int, source: str) -> None:
    apply_crds(by_kubectl.Cluster("default"))
    for name in (system, tenant):
        meta = {"name": name}
        await cluster.create({"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": meta})
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"secret": "x"}}
    await cluster.create({**secret, "metadata": {"name": "github-app", "namespace": system}})
    made = auth_server([tenant], certificates={"workloads": {"source": source}})
    made["metadata"]["namespace"] = system
    await cluster.create(made)
    made_of = [server_auth(f"s{number}", system) for number in range(count)]
    for one in made_of:
        one["metadata"]["namespace"] = tenant
    await all_of([partial(cluster.create, one) for one in made_of])


async def play_pod(cluster: Cluster, system: str) -> web.AppRunner:
    """A pod of the authserver, which shows what its kubelet would have written by now."""

    async def shown(_: web.Request) -> web.Response:
        listed, _version = await cluster.list(CONFIG_MAP, system)
        files = {
            name: resource_map.shard_hash(text)
            for one in listed
            if "-resources-" in one["metadata"]["name"]
            for name, text in one["data"].items()
        }
        return web.json_response({"files": files})

    app = web.Application()
    app.router.add_get("/resource-map", shown)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, _ADDRESS, 0)
    await site.start()
    port = runner.addresses[0][1]
    labels = {
        "app.kubernetes.io/name": "tokenward-authserver",
        "app.kubernetes.io/instance": "main",
    }
    container = {
        "name": "authserver", "image": "x", "ports": [{"name": "ops", "containerPort": port}]
    }  # fmt: skip
    meta = {"name": "main-played", "namespace": system, "labels": labels}
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    await cluster.apply({**account, "metadata": {"name": "default", "namespace": system}})
    # On no node: the pod garbage collector deletes pods of nodes that do not exist.
    spec = {"containers": [container], "schedulerName": "nobody"}
    await cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    status = {"phase": "Running", "podIP": _ADDRESS, "podIPs": [{"ip": _ADDRESS}]}
    await cluster.patch(POD, Key(system, "main-played"), {"status": status}, "status")
    return runner


async def ready(cluster: Cluster, tenant: str) -> int:
    listed, _ = await cluster.list(MCP_SERVER_AUTH, tenant)
    return sum(
        one["type"] == "Ready" and one["status"] == "True"
        for each in listed
        for one in each.get("status", {}).get("conditions", [])
    )


async def _bare_loop(cluster: Cluster, tenant: str, count: int) -> tuple[float, float]:
    """Per object: a Secret, two statuses and an event, as the controller writes them.

    Seconds, and CPU seconds of this process.
    """
    listed, _ = await cluster.list(MCP_SERVER_AUTH, tenant)
    secrets, _ = await cluster.list(SECRET, tenant)
    data = next(one["data"] for one in secrets if one["metadata"]["name"] == "s0-tokenward")
    status = next(one["status"] for one in listed if one["metadata"]["name"] == "s0")

    async def one(name: str) -> None:
        key = Key(tenant, f"{name}-copy")
        meta = {"name": key.name, "namespace": tenant}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}
        await cluster.create(secret)
        for written in ("x", "y"):
            change = {"status": {**status, "spiffeId": f"{written}{name}"}}
            await cluster.patch(MCP_SERVER_AUTH, Key(tenant, name), change, "status")
        event = {"apiVersion": "v1", "kind": EVENT.kind, "type": "Normal", "reason": "Test"}
        about = {"involvedObject": {"kind": "Secret", "name": name, "namespace": tenant}}
        await cluster.create({**event, **about, "metadata": {**meta, "name": f"{name}.copy"}})

    begun, cpu = monotonic(), process_time()
    await all_of([partial(one, f"s{n}") for n in range(count)])
    return monotonic() - begun, process_time() - cpu


async def remove(cluster: Cluster, *namespaces: str) -> None:
    """The namespaces with everything in them, and the client."""
    for name in namespaces:
        found = await cluster.get(NAMESPACE, Key("", name))
        assert found is not None
        await cluster.delete(NAMESPACE, Key("", name), found["metadata"]["uid"])
    await cluster.close()


@contextmanager
def started_controller(system: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A controller's process until the end of the block, and when it was started."""
    settings = {
        "namespace": system,
        "authserverImage": "registry.example.com/authserver:1",
        "webhook": {"authServer": "main", "configuration": {"image": SIDECAR}},
        "listeners": {"ops": {"host": "127.0.0.1", "port": 0}},
        "workers": WORKERS,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "controller.yaml")
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "controller", "--config", str(config)]
        begun = monotonic()
        process = subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.DEVNULL)
        try:
            yield process, begun
        finally:
            process.terminate()
            process.wait()


def _usage(pid: int) -> tuple[float, float]:
    """CPU seconds and MiB of memory."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    rss = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return cpu, rss


def _held() -> float:
    """MiB of a process that holds the same objects as dicts, from the same client."""
    program = (
        "import asyncio, sys, resource\n"
        "from controller.cluster import Cluster\n"
        "from controller.api.kinds import MCP_SERVER_AUTH\n"
        "async def main():\n"
        "    cluster = await Cluster.connect()\n"
        "    held, _ = await cluster.list(MCP_SERVER_AUTH)\n"
        "    pages = int(open('/proc/self/statm').read().split()[1])\n"
        "    print(pages * resource.getpagesize() / (1 << 20))\n"
        "    await cluster.close()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


async def main(count: int, source: str) -> None:
    cluster = await Cluster.connect()
    suffix = f"{os.getpid():x}"
    system, tenant = f"measure-{suffix}-system", f"measure-{suffix}"
    await prepare(cluster, system, tenant, count, source)
    played = await play_pod(cluster, system)
    with started_controller(system) as (process, begun):
        while await ready(cluster, tenant) < count:
            await asyncio.sleep(max(0.5, count / 500))
            if process.poll() is not None:
                raise RuntimeError("the controller ended")
        cold = monotonic() - begun
        cpu, _ = _usage(process.pid)
        await asyncio.sleep(20)
        before = await _versions(cluster, tenant)
        quiet, _ = _usage(process.pid)
        await asyncio.sleep(30)
        after, memory = _usage(process.pid)
        written = await _versions(cluster, tenant) != before
    held = _held()
    await played.cleanup()
    bare, bare_cpu = await _bare_loop(cluster, tenant, count) if source == "BuiltIn" else (0.0, 0.0)
    figures = {
        "source": source,
        "objects": count,
        "seconds": round(cold, 1),
        "bare_loop_seconds": round(bare, 1),
        "ratio": round(cold / bare, 2) if bare else None,
        "cpu_seconds": round(cpu, 1),
        "bare_loop_cpu_seconds": round(bare_cpu, 1),
        "quiet_share_of_a_core": round((after - quiet) / 30, 4),
        "wrote_while_quiet": written,
        "memory_mib": round(memory, 1),
        "memory_of_dicts_mib": round(held, 1),
    }
    print(json.dumps(figures))  # noqa: T201 - the measurement
    await remove(cluster, system, tenant)


async def _versions(cluster: Cluster, tenant: str) -> list[str]:
    listed, _ = await cluster.list(MCP_SERVER_AUTH, tenant)
    return [one["metadata"]["resourceVersion"] for one in listed]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.measure_controller")
    parser.add_argument("count", type=int)
    parser.add_argument("--source", default="BuiltIn", choices=("BuiltIn", "PodCertificate"))
    given = parser.parse_args()
    asyncio.run(main(given.count, given.source))
