"""Pods as a cluster's users make them."""

from typing import Any

from tests.cluster.cluster import Object
from tests.webhook.pods import injected, pod, recorded_pod, sidecar_of

# No node has it: the pods stay pending, and no kubelet takes part.
_NOWHERE = {"tokenward.dev-tests": "nowhere"}

_IDENTITY = "TOKENWARD_SPIFFE_ID"


def named(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    """An opted-in pod that is never scheduled; `annotations` are given without their prefix."""
    made = pod(annotations, nodeSelector=_NOWHERE, **spec)
    made["metadata"]["name"] = name
    return made


def silent(name: str) -> Object:
    made = named(name)
    del made["metadata"]["annotations"]
    return made


def intact(name: str, namespace: str) -> Object:
    """A pod of that namespace with the sidecar, made without asking the webhook."""
    made = injected(named(name))
    (identity,) = (e for e in sidecar_of(made)["env"] if e["name"] == _IDENTITY)
    identity["value"] = identity["value"].replace("mcp-servers", namespace)
    return made


def as_sent(name: str) -> Object:
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
    spec["nodeSelector"] = _NOWHERE
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": spec}
