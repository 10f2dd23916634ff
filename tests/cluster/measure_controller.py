"""Measures a controller against a real API server: `python -m tests.cluster.measure_controller N`.

Needs KUBECONFIG and the custom resource definitions. N MCPServerAuths are made, then a controller
is started. Beside it, a bare loop makes the same writes with the same client and concurrency.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from time import monotonic

import yaml

from controller.api.kinds import EVENT, MCP_SERVER_AUTH, NAMESPACE, SECRET
from controller.api.objects import Key
from controller.cluster import Cluster
from tests.cluster.controller import SIDECAR, auth_server, server_auth

_ROOT = Path(__file__).parents[2]
_WORKERS = 8


async def _all(work: Iterable[Callable[[], Awaitable[object]]], at_once: int = _WORKERS) -> None:
    limit = asyncio.Semaphore(at_once)

    async def one(make: Callable[[], Awaitable[object]]) -> None:
        async with limit:
            await make()

    await asyncio.gather(*(one(make) for make in work))


async def _prepare(cluster: Cluster, system: str, tenant: str, count: int) -> None:
    for name in (system, tenant):
        meta = {"name": name}
        await cluster.create({"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": meta})
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"secret": "x"}}
    await cluster.create({**secret, "metadata": {"name": "github-app", "namespace": system}})
    made = auth_server([tenant])
    made["metadata"]["namespace"] = system
    await cluster.create(made)
    made_of = [server_auth(f"s{number}", system) for number in range(count)]
    for one in made_of:
        one["metadata"]["namespace"] = tenant
    await _all([partial(cluster.create, one) for one in made_of])


async def _issued(cluster: Cluster, tenant: str) -> int:
    listed, _ = await cluster.list(MCP_SERVER_AUTH, tenant)
    return sum(
        one["type"] == "CertificateReady" and one["status"] == "True"
        for each in listed
        for one in each.get("status", {}).get("conditions", [])
    )


async def _bare_loop(cluster: Cluster, tenant: str, count: int) -> float:
    """Per object: read and write a Secret, write a status and an event, as the controller does."""
    listed, _ = await cluster.list(MCP_SERVER_AUTH, tenant)
    secrets, _ = await cluster.list(SECRET, tenant)
    data = next(one["data"] for one in secrets if one["metadata"]["name"] == "s0-tokenward")
    status = next(one["status"] for one in listed if one["metadata"]["name"] == "s0")

    async def one(name: str) -> None:
        key = Key(tenant, f"{name}-copy")
        await cluster.get(SECRET, key)
        meta = {"name": key.name, "namespace": tenant}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}
        await cluster.apply(secret)
        change = {"status": {**status, "spiffeId": f"x{name}"}}
        await cluster.patch(MCP_SERVER_AUTH, Key(tenant, name), change, "status")
        event = {"apiVersion": "v1", "kind": EVENT.kind, "type": "Normal", "reason": "Test"}
        about = {"involvedObject": {"kind": "Secret", "name": name, "namespace": tenant}}
        await cluster.create({**event, **about, "metadata": {**meta, "name": f"{name}.copy"}})

    begun = monotonic()
    await _all([partial(one, f"s{n}") for n in range(count)])
    return monotonic() - begun


def _usage(pid: int) -> tuple[float, float]:
    """CPU seconds and MiB of memory."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    rss = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return cpu, rss


async def main(count: int) -> None:
    cluster = await Cluster.connect()
    suffix = f"{os.getpid():x}"
    system, tenant = f"measure-{suffix}-system", f"measure-{suffix}"
    await _prepare(cluster, system, tenant, count)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "controller.yaml")
        settings = {
            "namespace": system,
            "authserverImage": "registry.example.com/authserver:1",
            "webhook": {"authServer": "main", "configuration": {"image": SIDECAR}},
            "listeners": {"ops": {"host": "127.0.0.1", "port": 0}},
            "workers": _WORKERS,
        }
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "controller", "--config", str(config)]
        begun = monotonic()
        process = subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.DEVNULL)
        while await _issued(cluster, tenant) < count:
            await asyncio.sleep(0.5)
        cold = monotonic() - begun
        cpu, _ = _usage(process.pid)
        await asyncio.sleep(20)
        before = await _versions(cluster, tenant)
        quiet, _ = _usage(process.pid)
        await asyncio.sleep(30)
        after, memory = _usage(process.pid)
        written = await _versions(cluster, tenant) != before
        process.terminate()
        process.wait()
    bare = await _bare_loop(cluster, tenant, count)
    figures = {
        "objects": count,
        "seconds": round(cold, 1),
        "bare_loop_seconds": round(bare, 1),
        "ratio": round(cold / bare, 2),
        "cpu_seconds": round(cpu, 1),
        "quiet_share_of_a_core": round((after - quiet) / 30, 4),
        "wrote_while_quiet": written,
        "memory_mib": round(memory, 1),
    }
    print(json.dumps(figures))  # noqa: T201 - the measurement
    for name in (system, tenant):
        found = await cluster.get(NAMESPACE, Key("", name))
        assert found is not None
        await cluster.delete(NAMESPACE, Key("", name), found["metadata"]["uid"])
    await cluster.close()


async def _versions(cluster: Cluster, tenant: str) -> list[str]:
    listed, _ = await cluster.list(MCP_SERVER_AUTH, tenant)
    return [one["metadata"]["resourceVersion"] for one in listed]


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
