import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import (
    Cluster,
    Object,
    Refused,
    address_towards_the_api_server,
    narrowed,
    pointed_at,
    webhook_on_this_host,
)
from tests.manifests.rendering import render
from tests.webhook.certificates import Authority

_CLUSTER_WIDE = (
    "mutatingwebhookconfiguration", "validatingadmissionpolicybinding", "validatingadmissionpolicy",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    missing = "KUBECONFIG" not in os.environ  # noqa: TID251 - how a cluster is named
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(180))
            if missing:
                item.add_marker(pytest.mark.skip(reason="no cluster"))


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return render("base", tmp_path_factory.mktemp("rendered"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A namespace of its own, gone with everything of this run afterwards."""
    made = Cluster(namespace="")
    made.namespace = f"tokenward-test-{made.suffix}"
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.namespace}}
    made.apply_everywhere(space)
    try:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        with contextlib.suppress(Refused):  # a controller manager was faster
            made.create(account)
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
def installed(
    cluster: Cluster, shipped: list[Object], host: str, tmp_path: Path
) -> Iterator[Cluster]:
    """The webhook on this host, configured in the cluster as shipped."""
    authority = Authority()
    with webhook_on_this_host(tmp_path, authority, host) as port:
        (configuration,) = (o for o in shipped if o["kind"] == "MutatingWebhookConfiguration")
        url = f"https://{host}:{port}"
        cluster.apply_everywhere(
            pointed_at(configuration, url=url, ca=authority.pem, cluster=cluster)
        )
        yield cluster


@pytest.fixture
def guarded(cluster: Cluster, shipped: list[Object]) -> Cluster:
    """The guard, as shipped, for this namespace."""
    for one in shipped:
        if one["metadata"]["name"] == "tokenward-guard":
            cluster.apply_everywhere(narrowed(one, cluster))
    return cluster
