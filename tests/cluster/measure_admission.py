"""Measures an admission as the API server and the caller see it, with many creates at a time.

`python -m tests.cluster.measure_admission [COMMIT] [--rounds N] [--pods N] [--at-once N]` asks the
control plane of KUBECONFIG, which must reach this host; no node is needed, for every create is a
dry run. In turn: plain pods with no webhook registered, pods that this tree's webhook injects, pods
that the one of COMMIT injects, and pods that get the same patch from a server which reads nothing
of a review: the least that a webhook can cost. Each turn has a fresh process and so fresh
connections.

One line of JSON for each kind, in ms, and one with the ratios; figures are medians of the rounds.
`mean` is of the API server's histogram, `first` the same for the first creates at once, which find
one open connection. `own` is what the webhook says of itself, `cpu` its process's for a review.
`connections` were opened in a turn, `connections_first` for those first creates.
"""

import argparse
import asyncio
import json
import os
import ssl
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import aiohttp
import uvloop

from tests.bench.against import Tree, checked_out
from tests.cluster import fixed_admission
from tests.cluster.admission_figures import Counted, Figures, at_caller
from tests.cluster.cluster import Cluster, Object, eventually, pointed_at
from tests.cluster.pods import as_sent
from tests.cluster.servers import RunningWebhook, address_towards_the_api_server, webhook_of
from tests.manifests.rendering import render
from tests.support.server_certificates import Authority
from tests.webhook.pods import SIDECAR, verdict

_ROOT: Final = Path(__file__).parents[2]
_PLAIN: Final = "plain"
_FIXED: Final = "fixed answer"
_VARIABLES: Final = 60  # of the pod's container: a review of 11 kB, managedFields included
_WARM: Final = 5  # times `--at-once` creates, before those that count


def pod(*, opted_in: bool) -> Object:
    """A Deployment's pod, larger by the environment of its container."""
    made = as_sent("pod-create-replicaset")
    environment = made["spec"]["containers"][0]["env"]
    environment += [{"name": f"OPTION_{n:03d}", "value": f"value-{n}"} for n in range(_VARIABLES)]
    if not opted_in:
        made["metadata"]["annotations"] = {}
    return made


@dataclass(frozen=True)
class Load:
    pods: int
    at_once: int


class Caller:
    """Creates pods as dry runs."""

    def __init__(self, url: str, session: aiohttp.ClientSession, namespace: str) -> None:
        self.session, self.url = session, url
        self._pods = f"{url}/api/v1/namespaces/{namespace}/pods?dryRun=All"

    async def create(self, body: bytes) -> float:
        """Milliseconds until the answer was whole."""
        begun = perf_counter()
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self._pods, data=body, headers=headers) as answer:
            await answer.read()
            answer.raise_for_status()
        return (perf_counter() - begun) * 1000

    async def create_many(self, body: bytes, load: Load) -> list[float]:
        """Milliseconds of each; every worker creates its next when it has its last answer."""
        work, found = repeat(None, load.pods), list[float]()

        async def worker() -> None:
            for _ in work:
                found.append(await self.create(body))

        await asyncio.gather(*(worker() for _ in range(load.at_once)))
        return found

    async def counted(self, webhook: RunningWebhook) -> Counted:
        return await Counted.now(self.session, self.url, webhook)


class Measured:
    """One namespace, and the configurations of its webhooks."""

    def __init__(self, space: Cluster, caller: Caller, folder: Path, load: Load) -> None:
        self._space, self._caller, self._folder, self._load = space, caller, folder, load
        shipped = render("base", folder)
        (self._configuration,) = (
            one for one in shipped if one["kind"] == "MutatingWebhookConfiguration"
        )

    async def turn(self, kind: str, tree: Tree | None) -> Figures:
        caller, load = self._caller, self._load
        body = json.dumps(pod(opted_in=kind != _PLAIN)).encode()
        first, warm = Load(load.at_once, load.at_once), Load(_WARM * load.at_once, load.at_once)
        if kind == _PLAIN:
            await caller.create_many(body, warm)
            return at_caller(await caller.create_many(body, load))
        with self._registered(tree) as webhook:
            cold = await caller.counted(webhook)
            await caller.create_many(body, first)
            early = cold.until(await caller.counted(webhook))
            await caller.create_many(body, warm)
            before = await caller.counted(webhook)
            seconds = await caller.create_many(body, load)
            found = at_caller(seconds) | before.until(await caller.counted(webhook))
        return found | {"first": early["mean"], "connections_first": early["connections"]}

    @contextmanager
    def _registered(self, tree: Tree | None) -> Iterator[RunningWebhook]:
        """The tree's webhook, or the one with a fixed answer; the API server calls no other."""
        authority, host = Authority(), address_towards_the_api_server()
        with self._started(tree, authority, host) as webhook:
            url = f"https://{host}:{webhook.port}"
            made = pointed_at(self._configuration, url=url, ca=authority.pem, cluster=self._space)
            self._space.apply_everywhere(made)
            try:
                eventually(self._injects, bool)
                yield webhook
            finally:
                self._space.run("delete", made["kind"], made["metadata"]["name"])
                eventually(self._injects, lambda found: not found)

    @contextmanager
    def _started(
        self, tree: Tree | None, authority: Authority, host: str
    ) -> Iterator[RunningWebhook]:
        if tree is not None:
            with webhook_of(tree, self._folder, authority, host) as webhook:
                yield webhook
            return
        authority.issue(self._folder, host=host)
        operations = list(verdict(pod(opted_in=True)).operations)
        with fixed_admission.served(self._folder, operations) as (port, pid):
            yield RunningWebhook(port, 0, pid)

    def _injects(self) -> bool:
        found = self._space.dry(pod(opted_in=True))
        return any(one["name"] == SIDECAR for one in found["spec"].get("initContainers", []))


def ratios(ours: list[Figures], other: list[Figures], plain: list[Figures]) -> Figures:
    """Of the mean, round by round; of what the p99 has beyond that of plain pods."""
    least = _median(plain, "p99")
    found = {
        name: median(a[name] / b[name] for a, b in zip(ours, other, strict=True))
        for name in ("mean", "first", "cpu")
    }
    beyond = (_median(ours, "p99") - least) / (_median(other, "p99") - least)
    return found | {"p99 beyond plain": beyond}


def _median(rounds: list[Figures], name: str) -> float:
    return median(one[name] for one in rounds)


@contextmanager
def namespace() -> Iterator[Cluster]:
    space = Cluster(f"measure-admission-{os.getpid():x}")
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.namespace}}
    space.apply_everywhere(made)
    try:
        space.give_account(space.namespace)
        yield space
    finally:
        space.run("delete", "namespace", space.namespace, "--wait=false")


def _credentials(space: Cluster, folder: Path) -> tuple[str, ssl.SSLContext]:
    """The API server's URL, and TLS with the client certificate of KUBECONFIG."""
    options = ("--raw", "--minify", "--flatten", "-o", "json")
    config: dict[str, Any] = json.loads(space.run("config", "view", *options))
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = b64decode(server["certificate-authority-data"]).decode()
    tls = ssl.create_default_context(cadata=authority)
    pair = folder / "caller.pem"
    pair.touch(0o600)
    names = ("client-certificate-data", "client-key-data")
    pair.write_bytes(b"\n".join(b64decode(user[name]) for name in names))
    tls.load_cert_chain(pair)
    return server["server"], tls


async def measure(commit: str, rounds: int, load: Load) -> None:
    trees = {
        _PLAIN: None,
        "injected": Tree(_ROOT, Path(sys.executable)),
        f"injected by {commit}": checked_out(commit),
        _FIXED: None,
    }
    found: dict[str, list[Figures]] = {kind: [] for kind in trees}
    with namespace() as space, tempfile.TemporaryDirectory() as made:
        url, tls = _credentials(space, Path(made))
        connector = aiohttp.TCPConnector(limit=0, ssl=tls)
        async with aiohttp.ClientSession(connector=connector) as session:
            measured = Measured(space, Caller(url, session, space.namespace), Path(made), load)
            for number in range(rounds):
                # The order changes, so that none always runs on a warm machine.
                for kind, tree in list(trees.items())[:: -1 if number % 2 else 1]:
                    found[kind].append(await measured.turn(kind, tree))
    for kind, figures in found.items():
        _say({"pods": kind, "n": load.pods * rounds}, {k: _median(figures, k) for k in figures[0]})
    plain, ours, old, fixed = found.values()
    _say({"ratios": f"this tree / {commit}"}, ratios(ours, old, plain))
    _say({"ratios": f"{_FIXED} / {commit}"}, ratios(fixed, old, plain))


def _say(what: dict[str, Any], figures: Figures) -> None:
    rounded = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps(what | rounded), flush=True)  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.measure_admission")
    parser.add_argument("commit", nargs="?", default="9d4a13e")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pods", type=int, default=400)
    parser.add_argument("--at-once", type=int, default=20)
    given = parser.parse_args()
    uvloop.run(measure(given.commit, given.rounds, Load(given.pods, given.at_once)))
