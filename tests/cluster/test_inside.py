"""A whole journey inside the cluster, and what happens to it when a part fails."""

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from tests.cluster.cluster import Object, Refused, eventually
from tests.cluster.controller import apply_crds
from tests.cluster.nodes import SIDECAR_IMAGE, container_state, events_of, log_of
from tests.cluster.whole import (
    clients,
    job_like_the_client,
    pods,
    remove,
    servers,
    system,
    wait_ready,
    walk,
)
from tests.webhook.pods import SIDECAR

pytestmark = [
    pytest.mark.skipif(not SIDECAR_IMAGE, reason="no node has this sidecar's image"),
    pytest.mark.skipif(
        "TOKENWARD_TEST_DISPOSABLE" not in os.environ,  # noqa: TID251 - how a person says it
        reason="installs into the whole cluster",
    ),
    pytest.mark.timeout(900),
]

_NOTES = "app.kubernetes.io/name=notes"
_AUTHSERVER = "app.kubernetes.io/name=tokenward-authserver"
_STEADY = ["python", "-m", "demo.cluster.steady"]
_MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def walked() -> Iterator[subprocess.CompletedProcess[str]]:
    """The demo, installed and walked once by `python -m demo.cluster`."""
    apply_crds(system)
    done = walk()
    yield done
    remove("demo")


def notes_pod() -> Object:
    (found,) = pods(servers, _NOTES)
    return found


def test_the_journey_holds_from_sign_in_to_tool_calls(
    walked: subprocess.CompletedProcess[str],
) -> None:
    assert walked.returncode == 0, walked.stdout + walked.stderr
    assert "Everything held" in walked.stdout
    for hop in ("POST /oauth/register", "GET /oauth/callback/acme", "POST /oauth/token"):
        assert hop in walked.stdout


def test_after_traffic_each_process_is_below_its_memory_limit(
    walked: subprocess.CompletedProcess[str],
) -> None:
    """As their control groups say, through the kubelet."""
    used = eventually(_memory, lambda found: {SIDECAR, "authserver", "webhook"} <= found.keys())
    assert 0 < used[SIDECAR] < 48 * _MEBIBYTE
    assert 0 < used["authserver"] < 384 * _MEBIBYTE
    assert 0 < used["webhook"] < 192 * _MEBIBYTE


def _memory() -> dict[str, int]:
    """The most anonymous memory of each kind of container of ours, in bytes."""
    (node,) = json.loads(system.run("get", "nodes", "-o", "json"))["items"]
    path = f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"
    found: dict[str, int] = {}
    for pod in json.loads(system.run("get", "--raw", path))["pods"]:
        if pod["podRef"]["namespace"] in (system.namespace, servers.namespace):
            for one in pod["containers"]:
                used = int(one.get("memory", {}).get("rssBytes", 0))
                if used:
                    found[one["name"]] = max(used, found.get(one["name"], 0))
    return found


def test_a_killed_authserver_comes_back_and_its_users_need_not_sign_in_again(
    walked: subprocess.CompletedProcess[str],
) -> None:
    made = job_like_the_client("steady", [*_STEADY, "--calls", "45"])
    clients.create(made)
    try:
        eventually(partial(_log, "steady"), lambda told: "signed in" in told)
        (before,) = pods(system, _AUTHSERVER)
        name = before["metadata"]["name"]
        system.inside("delete", "pod", name, "--force", "--grace-period=0")
        clients.inside("wait", "--for=condition=Complete", "job/steady", "--timeout=150s")
        told = _log("steady")
    finally:
        clients.inside("delete", "job", "steady", "--ignore-not-found")
    # The last call succeeded, with the session that was signed in before.
    assert told.count("signed in") == 1
    assert "45 calls" in told
    (after,) = pods(system, _AUTHSERVER)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


def _log(job: str) -> str:
    try:
        return clients.inside("logs", f"job/{job}")
    except Refused:
        return ""


def test_a_deleted_certificate_is_made_anew_and_reaches_the_running_sidecar(
    walked: subprocess.CompletedProcess[str],
) -> None:
    name = notes_pod()["metadata"]["name"]

    def loaded() -> list[str]:
        log = events_of(log_of(servers, name, SIDECAR))
        return [one["event"] for one in log if one["event"] == "credential_reloaded"]

    assert loaded() == []
    servers.inside("delete", "secret", "notes-tokenward")
    # The controller looks at Secrets of tenants every ten minutes, or when the object changes.
    changed = json.dumps({"spec": {"scopes": ["mcp", "again"]}})
    servers.inside("patch", "mcpserverauth", "notes", "--type=merge", "-p", changed)
    eventually(lambda: servers.get("secret", "notes-tokenward"), lambda found: found is not None)
    eventually(loaded, bool, seconds=150)
    assert container_state(notes_pod(), SIDECAR)["restartCount"] == 0


def test_without_the_webhook_opted_in_pods_wait_and_running_ones_go_on(
    walked: subprocess.CompletedProcess[str],
) -> None:
    system.inside("scale", "deployment/tokenward-webhook", "--replicas=0")
    try:
        eventually(lambda: pods(system, "app.kubernetes.io/name=tokenward-webhook"), _none)
        before = notes_pod()
        servers.inside("scale", "deployment/notes", "--replicas=2")
        eventually(
            lambda: servers.inside("get", "events", "-o", "jsonpath={.items[*].message}"),
            lambda told: "failed calling webhook" in told,
        )
        assert notes_pod()["metadata"]["uid"] == before["metadata"]["uid"]
        assert container_state(notes_pod(), "server")["ready"]
    finally:
        system.inside("scale", "deployment/tokenward-webhook", "--replicas=1")
        wait_ready(system, "deployment/tokenward-webhook")
    try:
        wait_ready(servers, "deployment/notes")
        assert [SIDECAR in _names(one) for one in pods(servers, _NOTES)] == [True, True]
    finally:
        servers.inside("scale", "deployment/notes", "--replicas=1")


def _none(found: list[Object]) -> bool:
    return not found


def _names(pod: Object) -> list[str]:
    return [one["name"] for one in pod["spec"]["initContainers"]]


def test_with_our_signer_no_key_leaves_the_kubelet_and_the_journey_holds(
    walked: subprocess.CompletedProcess[str],
) -> None:
    """Last of all: it changes the source of every certificate."""
    source = {"spec": {"certificates": {"workloads": {"source": "PodCertificate"}}}}
    patch = ("patch", "mcpauthserver", "main", "--type=merge", "-p", json.dumps(source))
    system.inside(*patch)
    eventually(
        lambda: system.get("configmap", "tokenward-webhook"),
        lambda found: found is not None and "podCertificate" in found["data"]["webhook.yaml"],
    )

    def projected() -> bool:
        """Whether the webhook follows: a dry run shows what it would write."""
        template = servers.get("deployment", "notes")
        assert template is not None
        pod = {"apiVersion": "v1", "kind": "Pod", **template["spec"]["template"]}
        pod["metadata"] |= {"name": "dry"}
        try:
            volumes = servers.dry(pod)["spec"]["volumes"]
        except Refused:  # the guard is changed in between
            return False
        return any("podCertificate" in json.dumps(one) for one in volumes)

    eventually(projected, bool, seconds=150)
    for name in ("notes", "plain"):
        servers.inside("rollout", "restart", f"deployment/{name}")
        wait_ready(servers, f"deployment/{name}")
    eventually(lambda: len(pods(servers, _NOTES)), lambda count: count == 1)
    volumes = {one["name"]: one for one in notes_pod()["spec"]["volumes"]}
    (signed,) = volumes["tokenward-credential"]["projected"]["sources"]
    assert signed["podCertificate"]["signerName"] == "tokenward.dev/workload"
    requests = json.loads(servers.inside("get", "podcertificaterequests", "-o", "json"))["items"]
    issued = [
        one["spec"]["podName"]
        for one in requests
        for condition in one.get("status", {}).get("conditions", [])
        if condition["type"] == "Issued"
    ]
    assert notes_pod()["metadata"]["name"] in issued
    again = walk("--workloads")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Everything held" in again.stdout
