"""Measures the signer against a real API server: `python -m tests.cluster.measure_signer`.

Needs KUBECONFIG and an API server that serves `certificates.k8s.io/v1`. This process plays the
kubelet: it makes requests for pods with a sidecar, one after the other and then all at once, and
notes when each is answered. In turn with it, a bare loop of the same client answers the same
requests to another signer: it sees a request, reads the pod, and writes an answer that was signed
beforehand. Both are processes of their own.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from chassis.spiffe_id import Workload
from controller.api.kinds import POD, POD_CERTIFICATE_REQUEST, SERVICE_ACCOUNT
from controller.api.objects import Key, key_of
from controller.cluster import Cluster
from controller.issuing import authority, pod_certificate_signer
from controller.issuing.authority import new_key
from controller.issuing.pod_certificate_signer import SIGNER
from tests.cluster.controller import SIDECAR
from tests.cluster.measure_controller import (
    WORKERS,
    all_of,
    play_pod,
    prepare,
    ready,
    remove,
    started_controller,
)
from tests.manifests.rendering import kubectl

_ROOT = Path(__file__).parents[2]
_BARE_SIGNER = "example.com/bare"
_NODE = "measured"
_DAY = timedelta(days=1)
_ROUNDS = 3
_CREATES = 50  # of this process at a time; a request waits for its answer outside of it


def _pod(name: str, namespace: str) -> dict[str, Any]:
    """As the webhook injects it, on a node that nobody runs."""
    certificate = {"signerName": SIGNER, "keyType": "ECDSAP256"}
    identity = f"spiffe://cluster.local/ns/{namespace}/mcpserver/s0"
    sidecar = {
        "name": "tokenward-sidecar", "image": SIDECAR, "restartPolicy": "Always",
        "command": ["python", "-m", "sidecar"],
        "env": [{"name": "TOKENWARD_SPIFFE_ID", "value": identity}],
        "volumeMounts": [{"name": "tokenward-credential", "mountPath": "/x"}],
    }  # fmt: skip
    projected = {"sources": [{"podCertificate": {**certificate, "credentialBundlePath": "c"}}]}
    return {
        "apiVersion": "v1",
        "kind": POD.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"tokenward.dev/injected": "true"},
        },
        "spec": {
            "nodeName": _NODE,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "initContainers": [sidecar],
            "containers": [{"name": "app", "image": "x"}],
            "volumes": [{"name": "tokenward-credential", "projected": projected}],
        },
    }


def _request(pod: dict[str, Any], account: str, signer: str, name: str) -> dict[str, Any]:
    key = new_key()
    stub = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    spec = {
        "signerName": signer,
        "podName": pod["metadata"]["name"],
        "podUID": pod["metadata"]["uid"],
        "serviceAccountName": "default",
        "serviceAccountUID": account,
        "nodeName": _NODE,
        "nodeUID": "0b1f",
        "stubPKCS10Request": b64encode(stub.public_bytes(Encoding.DER)).decode(),
        "maxExpirationSeconds": 86400,
    }
    kind = {
        "apiVersion": POD_CERTIFICATE_REQUEST.api_version,
        "kind": POD_CERTIFICATE_REQUEST.kind,
    }
    meta = {"name": name, "namespace": pod["metadata"]["namespace"]}
    return {**kind, "metadata": meta, "spec": spec}


def _signed(request: dict[str, Any], by: authority.Authority) -> dict[str, Any]:
    """The status that the signer would write."""
    done = pod_certificate_signer.sign(
        request,
        Workload(request["metadata"]["namespace"], "s0"),
        trust_domain="cluster.local",
        authority=by,
        lifetime=_DAY,
        now=datetime.now(UTC),
    )
    return dict(done.status)


class _Kubelet:
    """Makes requests and notes when each is answered; times by name."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._answered: dict[str, asyncio.Future[float]] = {}
        self._creates = asyncio.Semaphore(_CREATES)

    async def watch(self) -> None:
        _, version = await self._cluster.list(POD_CERTIFICATE_REQUEST, self._namespace)
        while True:
            async for event, one in self._cluster.watch(
                POD_CERTIFICATE_REQUEST, version, self._namespace
            ):
                version = one["metadata"]["resourceVersion"]
                waits = self._answered.get(str(one["metadata"].get("name")))
                conditions = (one.get("status") or {}).get("conditions")
                if event == "MODIFIED" and conditions and waits is not None and not waits.done():
                    if conditions[0]["type"] != "Issued":
                        raise RuntimeError(f"denied: {conditions[0]}")
                    waits.set_result(monotonic())

    async def ask(self, request: dict[str, Any]) -> float:
        """Seconds from when the request is stored until its answer is seen."""
        name = key_of(request).name
        self._answered[name] = asyncio.get_running_loop().create_future()
        async with self._creates:
            await self._cluster.create(request)
        stored = monotonic()
        return max(0.0, await self._answered[name] - stored)


async def _answer_bare(namespace: str, file: Path) -> None:
    """The bare loop: every request of the other signer is answered from the file."""
    cluster = await Cluster.connect()
    answers = json.loads(file.read_text())
    limit = asyncio.Semaphore(WORKERS)

    async def answer(one: dict[str, Any]) -> None:
        async with limit:
            await cluster.get(POD, Key(namespace, one["spec"]["podName"]))
            change = {"status": answers[key_of(one).name]}
            await cluster.patch(POD_CERTIFICATE_REQUEST, key_of(one), change, "status")

    _, version = await cluster.list(POD_CERTIFICATE_REQUEST, namespace)
    print("ready", flush=True)  # noqa: T201 - for the measuring process
    async with asyncio.TaskGroup() as tasks:
        while True:
            async for event, one in cluster.watch(
                POD_CERTIFICATE_REQUEST,
                version,
                namespace,
                fieldSelector=f"spec.signerName={_BARE_SIGNER}",
            ):
                version = one["metadata"]["resourceVersion"]
                if event == "ADDED":
                    tasks.create_task(answer(one))


@contextmanager
def _bare_signer(namespace: str, asked: list[dict[str, Any]]) -> Iterator[None]:
    """The bare loop in a process of its own, with an answer for each request."""
    purpose = authority.workloads("cluster.local")
    by = authority.create(purpose, key=new_key(), now=datetime.now(UTC), lifetime=30 * _DAY)
    answers = {key_of(one).name: _signed(one, by) for one in asked}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answers.json")
        file.write_text(json.dumps(answers))
        command = [sys.executable, "-m", "tests.cluster.measure_signer", "--bare", namespace]
        process = subprocess.Popen(
            [*command, str(file)], cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.terminate()
            process.wait()


async def _measured(kubelet: _Kubelet, requests: list[dict[str, Any]], alone: int) -> list[float]:
    """Median seconds one at a time, median and last of all the others at once."""
    singles = [await kubelet.ask(one) for one in requests[:alone]]
    crowd = await asyncio.gather(*(kubelet.ask(one) for one in requests[alone:]))
    return [median(singles), median(crowd), max(crowd)]


async def main(at_once: int, alone: int) -> None:
    cluster = await Cluster.connect()
    system, tenant = f"signer-{os.getpid():x}-system", f"signer-{os.getpid():x}"
    await prepare(cluster, system, tenant, 1, "PodCertificate")
    played = await play_pod(cluster, system)
    _kubectl(tenant, "apply", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": _NODE}})
    account = await _account(cluster, tenant)
    count = at_once + alone
    made: list[dict[str, Any]] = []

    async def make(number: int) -> None:
        made.append(dict(await cluster.create(_pod(f"p{number}", tenant))))

    figures: dict[str, list[list[float]]] = {SIGNER: [], _BARE_SIGNER: []}
    with started_controller(system):
        while await ready(cluster, tenant) < 1:
            await asyncio.sleep(0.5)
        await all_of([partial(make, number) for number in range(count)])
        kubelet = _Kubelet(cluster, tenant)
        watch = asyncio.create_task(kubelet.watch())
        for turn in range(_ROUNDS):
            for signer, measured in figures.items():
                name = f"{signer.partition('.')[0]}-{turn}"
                asked = [
                    _request(pod, account, signer, f"{name}-{number}")
                    for number, pod in enumerate(made)
                ]
                with _bare_signer(tenant, asked) if signer == _BARE_SIGNER else nullcontext():
                    measured.append(await _measured(kubelet, asked, alone))
        watch.cancel()
    print(json.dumps(_report(figures)))  # noqa: T201 - the measurement
    await played.cleanup()
    _kubectl(tenant, "delete", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": _NODE}})
    await remove(cluster, system, tenant)


def _report(figures: dict[str, list[list[float]]]) -> dict[str, dict[str, float]]:
    """Medians over the turns, in milliseconds, and the ratio of the two."""
    found = {}
    for place, name in enumerate(("one at a time, median", "at once, median", "at once, last")):
        ours, bare = (
            median(turn[place] for turn in figures[signer]) for signer in (SIGNER, _BARE_SIGNER)
        )
        found[name] = {
            "signer_ms": round(ours * 1000, 1),
            "bare_ms": round(bare * 1000, 1),
            "ratio": round(ours / bare, 2),
        }
    return found


async def _account(cluster: Cluster, namespace: str) -> str:
    """The UID of the ServiceAccount `default`, which a controller manager makes."""
    while True:
        stored = await cluster.get(SERVICE_ACCOUNT, Key(namespace, "default"))
        if stored is not None:
            return str(stored["metadata"]["uid"])
        await asyncio.sleep(0.2)


def _kubectl(namespace: str, verb: str, made: dict[str, Any]) -> None:
    command = [kubectl(), verb, "-n", namespace, "-f", "-"]
    subprocess.run(
        command, input=json.dumps(made), text=True, check=True, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.measure_signer")
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--alone", type=int, default=20)
    parser.add_argument("--bare", nargs=2, metavar=("NAMESPACE", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        asyncio.run(_answer_bare(given.bare[0], Path(given.bare[1])))
    else:
        asyncio.run(main(given.at_once, given.alone))
