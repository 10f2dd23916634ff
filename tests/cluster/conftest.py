import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Object, Refused, eventually, narrowed, pointed_at
from tests.cluster.controller import Site, access, apply_crds
from tests.cluster.pods import named
from tests.cluster.servers import address_towards_the_api_server, webhook_on_this_host
from tests.manifests.rendering import render
from tests.support.server_certificates import Authority

_CLUSTER_WIDE = (
    "mutatingwebhookconfiguration", "validatingadmissionpolicybinding", "validatingadmissionpolicy",
)  # fmt: skip

Install = Callable[..., Cluster]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = "KUBECONFIG" not in os.environ  # noqa: TID251 - how a cluster is named
    for item in items:
        if item.path.parent == here:  # the tests of the control plane's launcher need none
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(180))
            if missing:
                item.add_marker(pytest.mark.skip(reason="no cluster"))


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return render("base", tmp_path_factory.mktemp("rendered"))


@pytest.fixture(scope="session")
def configuration(shipped: list[Object]) -> Object:
    (found,) = (o for o in shipped if o["kind"] == "MutatingWebhookConfiguration")
    return found


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A namespace of its own, gone with everything of this run afterwards."""
    made = Cluster(namespace="")
    made.namespace = f"tokenward-test-{made.suffix}"
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.namespace}}
    made.apply_everywhere(space)
    try:
        made.give_account(made.namespace)
        yield made
    finally:
        for kind in _CLUSTER_WIDE:
            names = made.run("get", kind, "-o", "name").split()
            for name in (n for n in names if n.endswith(made.suffix)):
                made.run("delete", name)
        made.run("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture
def host() -> str:
    return address_towards_the_api_server()


@pytest.fixture
def install(
    cluster: Cluster, configuration: Object, host: str, tmp_path: Path
) -> Iterator[Install]:
    """Starts the webhook on this host, as configured, and waits until the API server calls it."""
    with contextlib.ExitStack() as running:

        def start(**changes: Any) -> Cluster:
            authority = Authority()
            port = running.enter_context(webhook_on_this_host(tmp_path, authority, host, **changes))
            url = f"https://{host}:{port}"
            made = pointed_at(configuration, url=url, ca=authority.pem, cluster=cluster)
            cluster.apply_everywhere(made)
            eventually(
                lambda: cluster.dry(named("probe")), lambda found: "initContainers" in found["spec"]
            )
            return cluster

        yield start


@pytest.fixture
def installed(install: Install) -> Cluster:
    """The webhook on this host, configured in the cluster as shipped."""
    return install()


@pytest.fixture
def guard(cluster: Cluster, shipped: list[Object]) -> Callable[[], None]:
    """Puts the guard up, as shipped, for this namespace, and waits until it is in force."""

    def put_up() -> None:
        for one in shipped:
            if one["metadata"]["name"] in ("tokenward-guard", "tokenward-guard-updates"):
                cluster.apply_everywhere(narrowed(one, cluster))
        # A pod that no webhook of ours is asked about, and that must not pass.
        forged = named("forged", {"inject": "false"})
        forged["metadata"]["labels"] = {"tokenward.dev/injected": "true"}
        eventually(lambda: cluster.refusal(forged), lambda told: "is for pods with" in told)
        _wait_for_updates(cluster)

    return put_up


def _wait_for_updates(cluster: Cluster) -> None:
    """The policy on updates is in force when a plain pod cannot be marked any more."""
    cluster.create(named("unmarked", {"inject": "false"}))

    def refusal() -> str:
        mark = ("label", "pod", "unmarked", "tokenward.dev/probe=x", "--dry-run=server")
        try:
            return cluster.inside(*mark)
        except Refused as told:
            return str(told)

    eventually(refusal, lambda told: "cannot change on a running pod" in told)


@pytest.fixture
def guarded(cluster: Cluster, guard: Callable[[], None]) -> Cluster:
    guard()
    return cluster


@pytest.fixture(scope="module")
def schemas() -> Cluster:
    """Where objects are tried and none is made."""
    made = Cluster("default")
    apply_crds(made)
    return made


@pytest.fixture
def site(schemas: Cluster, cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """Two namespaces, the controller's access, and an upstream's secret."""
    system = Cluster(f"{cluster.namespace}-system", cluster.suffix)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": system.namespace}}
    system.apply_everywhere(space)
    made = Site(system, cluster, tmp_path)
    cluster_wide = [("PersistentVolume", made.volume)]
    # This host does what a node does here, and a real kubelet would do it as well.
    nodes = system.run("get", "nodes", "-o", "name").split()
    try:
        for node in nodes:
            system.run("cordon", node)
        for one in access(system.namespace, cluster.suffix):
            where = one["metadata"].get("namespace", cluster.namespace)
            system.run("apply", "-n", where, "-f", "-", given=one)
            if one["kind"].startswith("Cluster"):
                cluster_wide.append((one["kind"], one["metadata"]["name"]))
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "github-app"},
            "stringData": {"secret": "s3cret"},
        }
        system.inside("apply", "-f", "-", given=secret)
        yield made
    finally:
        for process in made.authservers:
            process.terminate()
            process.wait()
        for node in nodes:
            system.run("uncordon", node)
        system.run("delete", "namespace", system.namespace, "--wait=false")
        for kind, name in cluster_wide:
            system.run("delete", kind, name, "--ignore-not-found", "--wait=false")
