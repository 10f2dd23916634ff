"""The webhook behind a real API server. Runs where KUBECONFIG is set; the API server must reach
this host (`TOKENWARD_TEST_HOST` says under which address). No node is needed.
"""

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Object, Refused, eventually, pointed_at
from tests.cluster.conftest import Install
from tests.cluster.pods import as_sent, named, silent
from tests.cluster.servers import later_webhook
from tests.support.pod_samples import CREATED
from tests.webhook.pods import SIDECAR, environment, sidecar_of, volume_of

_API_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.parametrize("name", CREATED)
def test_every_recorded_pod_is_injected_once_and_passes_the_guard(
    installed: Cluster, guarded: Cluster, name: str
) -> None:
    found = installed.create(as_sent(name))
    assert [c["name"] for c in found["spec"]["initContainers"]].count(SIDECAR) == 1
    assert found["metadata"]["labels"]["tokenward.dev/injected"] == "true"
    for container in found["spec"]["containers"]:
        assert environment(container)["TOKENWARD_URL"] == "http://127.0.0.1:15500"


def test_a_pod_on_its_nodes_network_is_denied(installed: Cluster) -> None:
    told = installed.refusal(as_sent("pod-create-daemonset-host-network"))
    assert "hostNetwork" in told


def test_the_api_token_stays_out_of_the_sidecar(installed: Cluster) -> None:
    found = installed.create(named("token"))
    mounts = {m["mountPath"]: m["name"] for m in sidecar_of(found)["volumeMounts"]}
    assert mounts[_API_TOKEN] == "tokenward-no-api-token"
    app = {m["mountPath"] for m in found["spec"]["containers"][0].get("volumeMounts", [])}
    if _API_TOKEN not in app:
        pytest.skip("this API server gives no pod an API token")


def test_a_denial_reaches_whoever_creates_the_pod(installed: Cluster) -> None:
    told = installed.refusal(named("denied", {"prot": "1"}, hostNetwork=True))
    assert "did you mean" in told
    assert "hostNetwork" in told


def test_a_dry_run_is_injected_and_stores_nothing(installed: Cluster) -> None:
    assert sidecar_of(installed.dry(named("dry")))
    assert installed.get("pod", "dry") is None


def test_a_restricted_namespace_admits_the_sidecar(installed: Cluster, guarded: Cluster) -> None:
    installed.label("pod-security.kubernetes.io/enforce", "restricted")
    if not installed.refusal(named("loose", {"inject": "false"})):
        pytest.skip("this API server enforces no Pod Security")
    made = named("restricted", container={"securityContext": _RESTRICTED})
    assert sidecar_of(installed.create(made))


def test_a_namespace_opts_its_silent_pods_in(installed: Cluster, guarded: Cluster) -> None:
    installed.label("tokenward.dev/inject", "enabled")
    found = eventually(
        lambda: installed.refusal(silent("silent")) or installed.dry(silent("silent")),
        lambda found: isinstance(found, dict) and "initContainers" in found["spec"],
    )
    assert isinstance(found, dict)
    assert sidecar_of(found)
    out = installed.create(named("out", {"inject": "false"}))
    assert "initContainers" not in out["spec"]


def test_limits_of_the_namespace_do_not_disturb_the_second_pass(
    installed: Cluster, guarded: Cluster
) -> None:
    installed.create(_limit_range({"ephemeral-storage": "1Gi", "cpu": "1"}))
    other = installed.dry(named("other", {"inject": "false"}))
    if "limits" not in other["spec"]["containers"][0].get("resources", {}):
        pytest.skip("this API server applies no LimitRange")
    limits = sidecar_of(installed.create(named("limited")))["resources"]["limits"]
    # Ours is the memory's; the namespace's is what ours does not say.
    assert limits == {"cpu": "1", "memory": "96Mi", "ephemeral-storage": "1Gi"}


def _limit_range(default: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "limits"},
        "spec": {"limits": [{"type": "Container", "default": default}]},
    }


def test_a_credential_by_csi_is_accepted(install: Install, guard: Callable[[], None]) -> None:
    identity = {
        "source": "csi",
        "driver": "csi.spiffe.io",
        "attributes": {"example.com/id": "{spiffeId}"},
    }
    cluster = install(identity=identity)
    guard()
    source = volume_of(cluster.create(named("csi")), "tokenward-credential")["csi"]
    assert source["driver"] == "csi.spiffe.io"
    assert f"/ns/{cluster.namespace}/" in source["volumeAttributes"]["example.com/id"]


def test_a_pod_certificate_is_kept_or_the_guard_says_that_it_was_dropped(
    install: Install, guard: Callable[[], None]
) -> None:
    cluster = install(identity={"source": "podCertificate"})
    projected = volume_of(cluster.dry(named("probe")), "tokenward-credential")["projected"]
    kept = all("podCertificate" in source for source in projected["sources"])
    guard()
    told = cluster.refusal(named("certified"))
    assert told == "" if kept else "the feature is off" in told


def test_a_webhook_after_ours_is_served_in_a_second_pass(
    installed: Cluster, guarded: Cluster, host: str, tmp_path: Path
) -> None:
    def add_a_container(made: Object) -> list[Object]:
        if any(c["name"] == "late" for c in made["spec"]["containers"]):
            return []
        late = {"name": "late", "image": "registry.example.com/late:1"}
        return [{"op": "add", "path": "/spec/containers/-", "value": late}]

    with later_webhook(tmp_path, add_a_container) as port:
        ca = (tmp_path / "ca.pem").read_bytes()
        installed.apply_everywhere(_later(installed, f"https://{host}:{port}/", ca))
        found = eventually(
            lambda: installed.dry(named("both")),
            lambda found: len(found["spec"]["containers"]) == 2,
        )
    assert [c["name"] for c in found["spec"]["initContainers"]] == [SIDECAR]
    assert all("TOKENWARD_URL" in environment(c) for c in found["spec"]["containers"])


def test_a_webhook_after_ours_that_strips_the_sidecar_is_caught(
    installed: Cluster, guarded: Cluster, host: str, tmp_path: Path
) -> None:
    def as_an_old_library_does(made: Object) -> list[Object]:
        inits = made["spec"].get("initContainers", [])
        path = "/spec/initContainers/{}/restartPolicy"
        return [
            {"op": "remove", "path": path.format(index)}
            for index, container in enumerate(inits)
            if "restartPolicy" in container
        ]

    with later_webhook(tmp_path, as_an_old_library_does) as port:
        ca = (tmp_path / "ca.pem").read_bytes()
        installed.apply_everywhere(_later(installed, f"https://{host}:{port}/", ca))
        eventually(lambda: installed.refusal(named("stripped")), lambda told: "restart" in told)


def _later(cluster: Cluster, url: str, ca: bytes) -> Object:
    """Called after ours: webhooks are called in the order of their configurations' names."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    webhook: dict[str, Any] = {
        "name": "late.example.com",
        "clientConfig": {"url": url, "caBundle": b64encode(ca).decode()},
        "rules": [rule | {"operations": ["CREATE"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"zz-tokenward-test-{cluster.suffix}"},
        "webhooks": [webhook],
    }


def test_an_outage_holds_up_opted_in_pods_and_nobody_else(
    cluster: Cluster, configuration: Object, host: str
) -> None:
    nowhere = f"https://{host}:1"
    also = ("kube-system",)
    made = pointed_at(configuration, url=nowhere, ca="", cluster=cluster, also=also)
    cluster.apply_everywhere(made)
    cluster.give_account("kube-system")
    held_up = named("held-up")
    eventually(lambda: cluster.refusal(held_up), lambda told: "failed calling webhook" in told)
    assert cluster.refusal(held_up, namespace="kube-system") == ""
    cluster.create(named("unrelated", {"inject": "false"}))
    cluster.create(silent("bare"))
    cluster.inside("label", "pod", "bare", "app=other")
    cluster.inside("delete", "pod", "bare", "--wait=false")
    with pytest.raises(Refused, match="failed calling webhook"):
        cluster.create(held_up)
