"""The webhook replaced, or away for a while, under a real API server and its controllers."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, Object, eventually, pointed_at
from tests.cluster.pods import named
from tests.cluster.servers import Service, served, webhook_on_this_host
from tests.support.server_certificates import Authority
from tests.webhook.pods import sidecar_of

_CALLERS = 4
_CLOSED_PORT = 1
_REPLACEMENTS = 3


def test_no_admission_fails_while_replicas_are_replaced(
    cluster: Cluster, configuration: Object, host: str, tmp_path: Path
) -> None:
    """An API server's HTTP client keeps and re-uses connections."""
    authority, service = Authority(), Service()
    done, admitted, refused = threading.Event(), count(), list[str]()

    def admit() -> None:
        while not done.is_set():
            if told := cluster.refusal(named("admitted")):
                refused.append(told)
            next(admitted)

    def replica(number: int) -> ExitStack:
        """Started and taken into the service; closing it tells it to stop, and waits."""
        folder = tmp_path / str(number)
        folder.mkdir()
        running = ExitStack()
        made = webhook_on_this_host(folder, authority, host, linger_seconds=2)
        service.replica = running.enter_context(made)
        return running

    with served(service), ExitStack() as ending, ThreadPoolExecutor(_CALLERS) as callers:
        old = ending.enter_context(replica(0))
        url = f"https://{host}:{service.server_address[1]}"
        made = pointed_at(configuration, url=url, ca=authority.pem, cluster=cluster)
        cluster.apply_everywhere(made)
        eventually(lambda: "initContainers" in cluster.dry(named("probe"))["spec"], bool)
        with ExitStack() as calling:
            calling.callback(done.set)
            for _ in range(_CALLERS):
                callers.submit(admit)
            for number in range(1, _REPLACEMENTS + 1):
                new = ending.enter_context(replica(number))
                old.close()
                old = new
    assert refused == []
    assert next(admitted) > 10 * _REPLACEMENTS


def test_a_deployment_that_waited_for_the_webhook_goes_on_by_itself(
    cluster: Cluster, configuration: Object, host: str, tmp_path: Path
) -> None:
    authority = Authority()

    def call(port: int) -> None:
        url = f"https://{host}:{port}"
        made = pointed_at(configuration, url=url, ca=authority.pem, cluster=cluster)
        cluster.apply_everywhere(made)

    call(_CLOSED_PORT)
    eventually(lambda: cluster.refusal(named("probe")), lambda told: "failed calling" in told)
    cluster.create(_deployment(named("ignored")))
    try:
        eventually(partial(_messages, cluster), lambda told: "failed calling webhook" in told)
    except AssertionError:
        pytest.skip("this cluster runs no Deployment controller")
    with webhook_on_this_host(tmp_path, authority, host) as port:
        call(port)
        (made,) = eventually(partial(_pods, cluster), bool)
    assert sidecar_of(made)


def _deployment(made: Object) -> Object:
    labels = {"app": "waiting"}
    metadata = {"labels": labels, "annotations": made["metadata"]["annotations"]}
    template = {"metadata": metadata, "spec": made["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "waiting"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def _messages(cluster: Cluster) -> str:
    """What the namespace's events say."""
    return cluster.inside("get", "events", "-o", "jsonpath={.items[*].message}")


def _pods(cluster: Cluster) -> list[Object]:
    found: list[Object] = json.loads(cluster.inside("get", "pods", "-o", "json"))["items"]
    return found
