"""`tokenward doctor --cluster` against a real API server."""

import json
import subprocess
import sys
from typing import Any

from tests.cluster.cluster import Cluster
from tests.manifests.rendering import kubectl


def problems(cluster: Cluster) -> list[dict[str, Any]]:
    """What the command says, run as an operator does."""
    done = subprocess.run(
        [
            sys.executable, "-m", "tokenward", "doctor", "--cluster", "--output", "json",
            "--kubectl", kubectl(), "--namespace", cluster.namespace,
        ],
        capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.stderr == b""
    found: list[dict[str, Any]] = json.loads(done.stdout)["problems"]
    assert done.returncode == (1 if found else 0)
    return found


def test_an_empty_cluster_has_neither_webhook_nor_guard(cluster: Cluster) -> None:
    found = {one["check"] for one in problems(cluster)}
    assert {"webhook_not_installed", "guard_not_installed"} <= found


def test_a_pod_made_without_a_webhook_and_a_webhook_that_nobody_answers_are_found(
    cluster: Cluster,
) -> None:
    made = cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "early", "annotations": {"tokenward.dev/inject": "true"}},
            "spec": {"containers": [{"name": "app", "image": "registry.invalid/app"}]},
        }
    )
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"tokenward-{cluster.suffix}"},
        "webhooks": [
            {
                "name": "pods.tokenward.dev",
                "clientConfig": {"url": "https://127.0.0.1:1/mutate"},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 2,
                "rules": [
                    {
                        "operations": ["CREATE"],
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                    }
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
            }
        ],
    }
    cluster.apply_everywhere(configuration)
    found = problems(cluster)
    place = f"Pod/{cluster.namespace}/{made['metadata']['name']}"
    assert ("pod_without_sidecar", place) in {(one["check"], one["place"]) for one in found}
    [unreachable] = [one for one in found if one["check"] == "webhook_unreachable"]
    assert "failed calling webhook" in unreachable["problem"]
