"""Pods that really start: `make test-cluster NODE=1`, or a cluster whose node has our images."""

import json
from functools import partial

import pytest

from demo.pki import CertificateAuthority
from tests.cluster.cluster import Cluster, eventually
from tests.cluster.conftest import Install
from tests.cluster.nodes import (
    ASK,
    SIDECAR_IMAGE,
    container_state,
    ended,
    events_of,
    give_credential,
    log_of,
    started,
)
from tests.cluster.pod_certificates import request_for, sign
from tests.webhook.pods import SIDECAR

pytestmark = pytest.mark.skipif(not SIDECAR_IMAGE, reason="no node has this sidecar's image")

_MEBIBYTE = 1 << 20


@pytest.fixture
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("tests")


@pytest.fixture
def injecting(install: Install) -> Cluster:
    return install(image=SIDECAR_IMAGE)


def test_the_sidecar_answers_before_the_app_starts_and_ends_after_it(
    injecting: Cluster, authority: CertificateAuthority
) -> None:
    give_credential(injecting, "once", authority)
    injecting.create(started("once", ASK))
    found = ended(injecting, "once")
    assert found["status"]["phase"] == "Succeeded"
    assert "401 Unauthorized" in log_of(injecting, "once", "app")
    sidecar = container_state(found, SIDECAR)["state"]["terminated"]
    app = container_state(found, "app")["state"]["terminated"]
    assert sidecar["startedAt"] <= app["startedAt"]
    assert sidecar["finishedAt"] >= app["finishedAt"]
    assert sidecar["exitCode"] == 0


def test_a_pod_waits_for_its_credential(
    injecting: Cluster, authority: CertificateAuthority
) -> None:
    injecting.create(started("early", ASK))
    eventually(
        lambda: injecting.inside("get", "events", "-o", "jsonpath={.items[*].message}"),
        lambda told: '"early-tokenward" not found' in told,
    )
    give_credential(injecting, "early", authority)
    found = ended(injecting, "early")
    assert found["status"]["phase"] == "Succeeded"
    assert container_state(found, SIDECAR)["restartCount"] == 0


def test_a_job_ends_beside_the_sidecar(injecting: Cluster, authority: CertificateAuthority) -> None:
    give_credential(injecting, "work", authority)
    made = started("work", ASK)
    template = {"metadata": {"annotations": made["metadata"]["annotations"]}, "spec": made["spec"]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}}
    injecting.create(job | {"spec": {"template": template, "backoffLimit": 0}})
    eventually(
        lambda: injecting.get("job", "work"),
        lambda found: found is not None and found.get("status", {}).get("succeeded") == 1,
    )


def test_a_rotated_secret_reaches_the_sidecar_without_a_restart(
    injecting: Cluster, authority: CertificateAuthority
) -> None:
    give_credential(injecting, "long", authority)
    injecting.create(started("long", "sleep 600"))

    def events() -> list[str]:
        return [one["event"] for one in events_of(log_of(injecting, "long", SIDECAR))]

    eventually(events, lambda found: "ready" in found)
    give_credential(injecting, "long", authority)
    eventually(events, lambda found: "credential_reloaded" in found)
    found = injecting.get("pod", "long")
    assert found is not None
    assert container_state(found, "app")["state"]["running"]
    assert container_state(found, SIDECAR)["restartCount"] == 0


def test_the_kubelet_asks_a_signer_for_the_pods_certificate(
    install: Install, authority: CertificateAuthority
) -> None:
    cluster = install(image=SIDECAR_IMAGE, identity={"source": "podCertificate"})
    cluster.create(started("signed", ASK))
    request = eventually(partial(request_for, cluster, "signed"), bool)
    assert request is not None
    assert request["spec"]["serviceAccountName"] == "default"
    spiffe_id = f"spiffe://example.org/ns/{cluster.namespace}/mcpserver/signed"
    sign(cluster, request, authority, spiffe_id)
    assert ended(cluster, "signed")["status"]["phase"] == "Succeeded"
    assert "401 Unauthorized" in log_of(cluster, "signed", "app")


def test_an_idle_sidecar_keeps_within_its_memory_request(
    injecting: Cluster, authority: CertificateAuthority
) -> None:
    """As its control group says, through the kubelet; the request is 48Mi."""
    give_credential(injecting, "idle", authority)
    injecting.create(started("idle", "sleep 600"))
    used = eventually(partial(_memory, injecting), bool)
    assert 0 < used < 48 * _MEBIBYTE


def _memory(cluster: Cluster) -> int:
    """Anonymous memory of the namespace's sidecar in bytes; 0 until the kubelet has measured it."""
    (node,) = json.loads(cluster.run("get", "nodes", "-o", "json"))["items"]
    path = f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"
    pods = json.loads(cluster.run("get", "--raw", path))["pods"]
    ours = (found for found in pods if found["podRef"]["namespace"] == cluster.namespace)
    sidecars = (c for found in ours for c in found["containers"] if c["name"] == SIDECAR)
    return sum(int(one.get("memory", {}).get("rssBytes", 0)) for one in sidecars)


def test_a_sidecar_with_anothers_certificate_ends_and_the_pod_says_why(
    injecting: Cluster, authority: CertificateAuthority
) -> None:
    give_credential(injecting, "wrong", authority, named="other")
    injecting.create(started("wrong", "sleep 600"))

    def last_words() -> str:
        state = container_state(injecting.get("pod", "wrong") or {}, SIDECAR).get("lastState", {})
        return str(state.get("terminated", {}).get("message", ""))

    told = eventually(last_words, bool)
    assert "credential_unusable" in told
    assert "start_failed" in told
    found = injecting.get("pod", "wrong")
    assert found is not None
    assert container_state(found, SIDECAR)["lastState"]["terminated"]["exitCode"] == 1
    assert "running" not in container_state(found, "app").get("state", {})
    # With the right one it starts at the kubelet's next try.
    give_credential(injecting, "wrong", authority)
    eventually(
        lambda: container_state(injecting.get("pod", "wrong") or {}, "app").get("state", {}),
        lambda state: "running" in state,
        seconds=120,
    )


@pytest.mark.parametrize(
    ("start", "module"),
    [
        ("python -v -m sidecar", "sidecar/__pycache__/app."),
        ("python -v -S -c 'import sidecar.wait_until_ready'", "/wait_until_ready."),
    ],
)
def test_a_start_finds_every_module_compiled(cluster: Cluster, start: str, module: str) -> None:
    """The root is read-only: what is not compiled in the image is compiled at each start."""
    # Without its variables the sidecar ends when it has imported everything.
    made = started("compiled", f"{start} 2>&1 | grep 'code object from'")
    made["metadata"]["annotations"] = {}
    made["spec"]["containers"][0]["image"] = SIDECAR_IMAGE
    cluster.create(made)

    def over() -> str:
        found = cluster.get("pod", "compiled")
        return "" if found is None else found["status"].get("phase", "")

    eventually(over, lambda phase: phase in ("Succeeded", "Failed"))
    lines = log_of(cluster, "compiled", "app").splitlines()
    assert any(module in line for line in lines)
    assert [line for line in lines if not line.endswith(".pyc'")] == []
