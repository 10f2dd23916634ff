"""Every rendered object, and the policies that only speak, at a real API server."""

from functools import partial
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, Object, Refused, eventually, narrowed
from tests.cluster.controller import apply_crds
from tests.manifests.rendering import CONTROLLED, RENDERED, render

# Their definitions are not ours to install.
_CUSTOM = ("cert-manager.io/", "policy.cert-manager.io/", "monitoring.coreos.com/")


@pytest.mark.parametrize("name", [*RENDERED, *CONTROLLED])
def test_every_object_is_accepted(cluster: Cluster, tmp_path: Path, name: str) -> None:
    apply_crds(cluster)
    served = set(cluster.run("api-versions").split())
    refused = []
    for one in render(name, tmp_path):
        if one["apiVersion"] not in served and one["apiVersion"].startswith(_CUSTOM):
            continue
        # Its own namespace may not be there; nothing here depends on which it is.
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = cluster.namespace
        options = ("--server-side", "--force-conflicts", "--dry-run=server")
        try:
            cluster.run("apply", *options, "-f", "-", given=one)
        except Refused as told:
            refused.append(str(told))
    assert refused == []


def test_applying_again_changes_no_policy(cluster: Cluster, shipped: list[Object]) -> None:
    for one in _policies(shipped):
        made = narrowed(one, cluster)
        assert cluster.apply_everywhere(made).endswith("created\n")
        assert cluster.apply_everywhere(made).endswith("unchanged\n")


def test_the_shipped_policies_have_no_type_errors(cluster: Cluster, shipped: list[Object]) -> None:
    """The API server checks expressions against the schemas it serves, and says what it finds."""
    policies = [narrowed(one, cluster) for one in _policies(shipped)]
    assert len(policies) == 5
    for policy in policies:
        cluster.apply_everywhere(policy)
    for policy in policies:
        name = policy["metadata"]["name"]
        found = eventually(partial(cluster.get, "validatingadmissionpolicy", name), _type_checked)
        assert found is not None
        assert found["status"]["typeChecking"].get("expressionWarnings", []) == []


def _policies(shipped: list[Object]) -> list[Object]:
    return [one for one in shipped if one["kind"] == "ValidatingAdmissionPolicy"]


def _type_checked(policy: Object | None) -> bool:
    return policy is not None and "typeChecking" in policy.get("status", {})


_POD = {"containers": [{"name": "app", "image": "registry.example.com/app:1"}]}


def _template(annotations: dict[str, str]) -> Object:
    prefixed = {f"tokenward.dev/{key}": value for key, value in annotations.items()}
    return {"metadata": {"labels": {"app": "x"}, "annotations": prefixed}, "spec": _POD}


def _deployment(annotations: dict[str, str]) -> Object:
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": _template(annotations)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}


def _job(annotations: dict[str, str]) -> Object:
    template = _template(annotations)
    template["spec"] = _POD | {"restartPolicy": "Never"}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": template}}


def _cron_job(annotations: dict[str, str]) -> Object:
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": _job(annotations)["spec"]}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "spec": spec}


def test_whoever_applies_a_workload_is_warned(cluster: Cluster, shipped: list[Object]) -> None:
    for one in shipped:
        if one["metadata"]["name"] == "tokenward-warnings":
            cluster.apply_everywhere(narrowed(one, cluster))

    def told(made: Object) -> str:
        workload = made | {"metadata": {"name": "warned"}}
        return cluster.inside("apply", "--dry-run=server", "-f", "-", given=workload)

    bad = {"inject": "yes"}
    eventually(lambda: told(_deployment(bad)), lambda told: "must be" in told)
    for make in (_deployment, _job, _cron_job):
        assert "Warning: " in told(make(bad))
        assert "unknown annotation" in told(make({"inject": "true", "prot": "1"}))
        assert "no tokenward.dev/inject" in told(make({"port": "15600"}))
        assert "tokenward:" not in told(make({"inject": "true", "port": "15600"}))
