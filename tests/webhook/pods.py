"""Pods and settings to judge, and what the API server would make of the answer."""

import json
from pathlib import Path
from typing import Any

import jsonpatch

from webhook import pod_view
from webhook.evaluate import AdmissionResult, evaluate
from webhook.settings import Settings, check
from webhook.value_types import CaBundle

NAMESPACE = "mcp-servers"
IMAGE = f"registry.example.com/tokenward/sidecar@sha256:{'a' * 64}"
CA = CaBundle(Path("ca.pem"), "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")

_RECORDED = Path(__file__).parent / "admission"

SIDECAR = "tokenward-sidecar"


def raw_settings(**changes: Any) -> dict[str, Any]:
    return {
        "image": IMAGE,
        "trustDomain": "example.org",
        "issuer": "https://auth.example.com",
        "authserver": {"url": "https://authserver.tokenward-system.svc:8443", "caFile": CA},
    } | changes


def settings(**changes: Any) -> Settings:
    return check(raw_settings(**changes), Path())


def pod(
    annotations: dict[str, str] | None = None,
    *,
    labels: dict[str, str] | None = None,
    container: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """An opted-in pod; `annotations` are given without their prefix."""
    prefixed = {f"tokenward.dev/{key}": value for key, value in (annotations or {}).items()}
    metadata: dict[str, Any] = {
        "name": "github",
        "annotations": {"tokenward.dev/inject": "true"} | prefixed,
    }
    if labels:
        metadata["labels"] = labels
    app = {"name": "app", "image": "registry.example.com/app:1"} | (container or {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [app]} | spec,
    }


def recorded(name: str) -> dict[str, Any]:
    """An AdmissionReview as a Kubernetes 1.36 API server sent it."""
    review: dict[str, Any] = json.loads((_RECORDED / f"{name}.json").read_text("utf-8"))
    return review


def recorded_pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = recorded(name)["request"]["object"]
    return found


def verdict(
    pod: dict[str, Any], under: Settings | None = None, *, namespace_opted_in: bool = False
) -> AdmissionResult:
    under = under or settings()
    return evaluate(pod_view.read(pod), NAMESPACE, under, namespace_opted_in=namespace_opted_in)


def patched(pod: dict[str, Any], told: AdmissionResult) -> dict[str, Any]:
    result: dict[str, Any] = jsonpatch.apply_patch(pod, list(told.operations))
    return result


def injected(
    pod: dict[str, Any], under: Settings | None = None, *, namespace_opted_in: bool = False
) -> dict[str, Any]:
    told = verdict(pod, under, namespace_opted_in=namespace_opted_in)
    assert told.decision == "injected", told.message or told.reason
    return patched(pod, told)


def sidecar_of(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = (c for c in pod["spec"]["initContainers"] if c["name"] == SIDECAR)
    assert isinstance(found, dict)
    return found


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container.get("env") or ()}


def volume_of(pod: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (v for v in pod["spec"]["volumes"] if v["name"] == name)
    assert isinstance(found, dict)
    return found
