"""A whole installation with real images: applied, looked at, and removed again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from demo.cluster.places import NAMESPACE, SERVERS_NAMESPACE, SYSTEM_NAMESPACE
from tests.cluster.cluster import Cluster, Object
from tests.cluster.nodes import SIDECAR_IMAGE
from tests.manifests.rendering import MANIFESTS, kubectl

PLACEHOLDER = f"registry.example.com/tokenward/sidecar@sha256:{'0' * 64}"
OVERLAYS = MANIFESTS / "overlays"
_ROOT = Path(__file__).parents[2]
_WAIT = "--timeout=170s"

system = Cluster(SYSTEM_NAMESPACE)
servers = Cluster(SERVERS_NAMESPACE)
clients = Cluster(NAMESPACE)


def apply_overlay(name: str) -> None:
    """Apply manifests/overlays/NAME with the sidecar's image that the node has."""
    rendered = system.run("kustomize", str(OVERLAYS / name))
    assert rendered.count(PLACEHOLDER) == 1
    subprocess.run(
        [kubectl(), "apply", "-f", "-"],
        input=rendered.replace(PLACEHOLDER, SIDECAR_IMAGE),
        text=True,
        check=True,
        capture_output=True,
    )


def wait_ready(cluster: Cluster, *names: str) -> None:
    """Until each object has the condition Ready, or the Deployment all its pods."""
    for name in names:
        if name.startswith("deployment/"):
            cluster.inside("rollout", "status", name, _WAIT)
        else:
            cluster.inside("wait", "--for=condition=Ready", name, _WAIT)


def remove(name: str) -> None:
    """Remove manifests/overlays/NAME and everything in its namespaces."""
    for kind in ("mcpserverauths", "mcpauthservers"):
        system.run("delete", kind, "--all", "--all-namespaces", "--wait")
    overlay = str(OVERLAYS / name)
    system.run("delete", "-k", overlay, "--ignore-not-found", "--wait", "--timeout=170s")


def walk(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m demo.cluster`, as `make demo-cluster` runs it."""
    environment = {**os.environ, "TOKENWARD_SIDECAR_IMAGE": SIDECAR_IMAGE}  # noqa: TID251 - passed on
    return subprocess.run(
        [sys.executable, "-m", "demo.cluster", *arguments],
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def pods(cluster: Cluster, label: str) -> list[Object]:
    """Pods with the label that are not going away."""
    found: list[Object] = json.loads(cluster.inside("get", "pods", "-l", label, "-o", "json"))[
        "items"
    ]
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


def job_like_the_client(name: str, command: list[str]) -> Object:
    """The demo's client Job with another program of its image."""
    made = yaml.safe_load((OVERLAYS / "demo/workloads/client.yaml").read_text("utf-8"))
    made["metadata"]["name"] = name
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container |= {"image": "tokenward/demo:dev", "command": command}
    return dict(made)
