"""The webhook behind a real API server. Runs where KUBECONFIG is set; the API server must reach
this host (`TOKENWARD_TEST_HOST` says under which address). No node is needed.
"""

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import pytest

from tests.cluster.cluster import Cluster, Object, Refused, later_webhook, pointed_at
from tests.webhook.pods import SIDECAR, environment, injected, pod, recorded_pod, sidecar_of
from tests.webhook.test_patch import CREATED

_T = TypeVar("_T")
_API_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


def _eventually(attempt: Callable[[], _T], holds: Callable[[_T], bool]) -> _T:
    """API servers take configurations over within seconds, and say nothing when they have."""
    end = monotonic() + 60
    while True:
        found = attempt()
        if holds(found) or monotonic() > end:
            assert holds(found), found
            return found


def _fresh(name: str) -> Object:
    """A recorded pod as its author would send it: without what the API server adds."""
    made = recorded_pod(name)
    metadata, spec = made["metadata"], made["spec"]
    kept = {
        k: metadata[k] for k in ("name", "generateName", "labels", "annotations") if k in metadata
    }
    tokens = {v["name"] for v in spec["volumes"] if v["name"].startswith("kube-api-access")}
    spec["volumes"] = [v for v in spec["volumes"] if v["name"] not in tokens]
    for container in spec.get("initContainers", []) + spec["containers"]:
        mounts = container.get("volumeMounts", [])
        container["volumeMounts"] = [m for m in mounts if m["name"] not in tokens]
    for field in ("priority", "preemptionPolicy"):
        spec.pop(field, None)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": spec}


def _dry(cluster: Cluster, made: Object) -> Object:
    return cluster.create(made, "--dry-run=server")


def _ready(cluster: Cluster) -> None:
    """Wait until the API server calls the webhook."""
    _eventually(
        lambda: _dry(cluster, _named("probe")),
        lambda found: "initContainers" in found["spec"],
    )


def _named(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    made = pod(annotations, **spec)
    made["metadata"]["name"] = name
    return made


@pytest.mark.parametrize("name", CREATED)
def test_every_recorded_pod_is_injected_once(installed: Cluster, name: str) -> None:
    _ready(installed)
    found = installed.create(_fresh(name))
    assert [c["name"] for c in found["spec"]["initContainers"]].count(SIDECAR) == 1
    assert found["metadata"]["labels"]["tokenward.dev/injected"] == "true"
    for container in found["spec"]["containers"]:
        assert environment(container)["TOKENWARD_URL"] == "http://127.0.0.1:15500"


def test_the_api_token_stays_out_of_the_sidecar(installed: Cluster) -> None:
    _ready(installed)
    found = installed.create(_named("token"))
    mounts = {m["mountPath"]: m["name"] for m in sidecar_of(found)["volumeMounts"]}
    assert mounts[_API_TOKEN] == "tokenward-no-api-token"


def test_a_denial_reaches_whoever_creates_the_pod(installed: Cluster) -> None:
    _ready(installed)
    with pytest.raises(Refused, match="did you mean"):
        installed.create(_named("denied", {"prot": "1"}, hostNetwork=True))


def test_a_dry_run_is_injected_and_stores_nothing(installed: Cluster) -> None:
    _ready(installed)
    assert sidecar_of(_dry(installed, _named("dry")))
    with pytest.raises(Refused, match="NotFound"):
        installed.run("get", "pod", "-n", installed.namespace, "dry")


def test_a_restricted_namespace_admits_the_sidecar(installed: Cluster) -> None:
    _ready(installed)
    installed.label("pod-security.kubernetes.io/enforce", "restricted")
    app = {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    }
    made = pod(container=app)
    made["metadata"]["name"] = "restricted"
    assert sidecar_of(installed.create(made))


def test_a_namespace_opts_its_silent_pods_in(installed: Cluster) -> None:
    _ready(installed)
    installed.label("tokenward.dev/inject", "enabled")
    silent = _named("silent")
    del silent["metadata"]["annotations"]
    found = _eventually(
        lambda: _dry(installed, silent), lambda found: "initContainers" in found["spec"]
    )
    assert sidecar_of(found)
    out = _named("out", {"inject": "false"})
    assert "initContainers" not in installed.create(out)["spec"]


def test_limits_of_the_namespace_do_not_disturb_the_second_pass(installed: Cluster) -> None:
    limits = {"type": "Container", "default": {"ephemeral-storage": "1Gi", "cpu": "1"}}
    installed.create(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "limits"},
            "spec": {"limits": [limits]},
        }
    )
    _ready(installed)
    found = installed.create(_named("limited"))
    assert sidecar_of(found)["resources"]["limits"]["cpu"] == "200m"


def test_a_webhook_after_ours_is_served_in_a_second_pass(
    installed: Cluster, host: str, tmp_path: Path
) -> None:
    _ready(installed)

    def add_a_container(made: Object) -> list[Object]:
        if any(c["name"] == "late" for c in made["spec"]["containers"]):
            return []
        late = {"name": "late", "image": "registry.example.com/late:1"}
        return [{"op": "add", "path": "/spec/containers/-", "value": late}]

    with later_webhook(tmp_path, add_a_container) as port:
        ca = (tmp_path / "ca.pem").read_bytes()
        rules = [
            {
                "operations": ["CREATE"],
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods"],
            }
        ]
        only = {"kubernetes.io/metadata.name": installed.namespace}
        installed.apply_everywhere(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": f"zz-tokenward-test-{installed.suffix}"},
                "webhooks": [
                    {
                        "name": "late.example.com",
                        "clientConfig": {
                            "url": f"https://{host}:{port}/",
                            "caBundle": b64encode(ca).decode(),
                        },
                        "rules": rules,
                        "namespaceSelector": {"matchLabels": only},
                        "sideEffects": "None",
                        "admissionReviewVersions": ["v1"],
                    }
                ],
            }
        )
        found = _eventually(
            lambda: _dry(installed, _named("both")),
            lambda found: len(found["spec"]["containers"]) == 2,
        )
    assert [c["name"] for c in found["spec"]["initContainers"]] == [SIDECAR]
    assert all("TOKENWARD_URL" in environment(c) for c in found["spec"]["containers"])


def test_an_outage_holds_up_opted_in_pods_and_nobody_else(
    cluster: Cluster, shipped: list[Object], host: str
) -> None:
    (configuration,) = (o for o in shipped if o["kind"] == "MutatingWebhookConfiguration")
    nowhere = f"https://{host}:1"
    made = pointed_at(configuration, url=nowhere, ca="", cluster=cluster)
    for webhook in made["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    cluster.apply_everywhere(made)

    def refused() -> str:
        try:
            _dry(cluster, _named("held-up"))
        except Refused as told:
            return str(told)
        return ""

    assert "failed calling webhook" in _eventually(refused, bool)
    cluster.create(_named("unrelated", {"inject": "false"}))
    bare = _named("bare")
    del bare["metadata"]["annotations"]
    cluster.create(bare)


def test_the_guard_refuses_a_stripped_sidecar_and_lets_an_intact_one_pass(
    guarded: Cluster,
) -> None:
    made = injected(_named("guarded"))
    container = sidecar_of(made)
    identity = next(e for e in container["env"] if e["name"] == "TOKENWARD_SPIFFE_ID")
    identity["value"] = identity["value"].replace("mcp-servers", guarded.namespace)

    def refused() -> str:
        try:
            _dry(guarded, _named("without"))
        except Refused as told:
            return str(told)
        return ""

    assert "exactly one init container" in _eventually(refused, bool)
    assert sidecar_of(_dry(guarded, made))
    del container["restartPolicy"]
    with pytest.raises(Refused, match="restartPolicy"):
        guarded.create(made)


def test_the_shipped_policies_have_no_type_errors(guarded: Cluster) -> None:
    """The API server checks expressions against the schemas it serves, and says what it finds."""
    name = f"tokenward-guard-{guarded.suffix}"
    path = "jsonpath={.status.typeChecking.expressionWarnings}"
    told = guarded.run("get", "validatingadmissionpolicy", name, "-o", path)
    assert told.strip() == ""
