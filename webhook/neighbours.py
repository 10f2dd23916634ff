"""Other admission webhooks that add variables and mounts to every container, ours included.

The operator names what they may add (`neighbours` of the configuration). Nothing that steers
Python, the dynamic linker, TLS or the sidecar itself can be named.
"""

import posixpath
from collections.abc import Iterable
from typing import Any, Final

# Variables that would decide what the sidecar runs, whom it trusts or what it does.
STEERING: Final = ("PYTHON", "LD_", "SSL", "OPENSSL", "GCONV_PATH", "GLIBC_", "TOKENWARD_", "PATH")
# The only places where neighbours mount something. Code, libraries and configuration lie elsewhere.
MOUNT_ROOTS: Final = ("/var/run/", "/run/", "/var/lib/", "/mnt/", "/tmp/", "/srv/")  # noqa: S108 - a rule, not a file
RESERVED_MOUNTS: Final = ("/var/run/tokenward", "/var/run/secrets/kubernetes.io")

# Variable prefixes and mount paths of webhooks in the field, and how to keep each off the sidecar.
_KNOWN: Final = (
    ("AWS_", "EKS Pod Identity", "annotation eks.amazonaws.com/skip-containers: tokenward-sidecar"),
    (
        "AZURE_",
        "Azure Workload Identity",
        "annotation azure.workload.identity/skip-containers: tokenward-sidecar",
    ),
    ("DD_", "the Datadog admission controller", 'label admission.datadoghq.com/enabled: "false"'),
    (
        "OTEL_",
        "the OpenTelemetry operator",
        "annotation instrumentation.opentelemetry.io/container-names with the app's containers",
    ),
    ("/var/run/secrets/eks.amazonaws.com", "EKS Pod Identity", "skip-containers as for AWS_"),
    (
        "/var/run/secrets/pods.eks.amazonaws.com",
        "EKS Pod Identity",
        "skip-containers as for AWS_",
    ),
    ("/var/run/secrets/azure", "Azure Workload Identity", "skip-containers as for AZURE_"),
    ("/var/run/datadog", "the Datadog admission controller", "the same label as for DD_"),
)


def steers(name: str) -> bool:
    """Whether a variable of this name may change what the sidecar does."""
    return name.upper().startswith(STEERING)


def variable_allowed(entry: Any, prefixes: Iterable[str]) -> bool:
    """Whether a variable that is not ours may be added to the sidecar."""
    name = entry.get("name") if isinstance(entry, dict) else None
    return isinstance(name, str) and not steers(name) and name.startswith(tuple(prefixes))


def mount_allowed(mount: Any, paths: Iterable[str]) -> bool:
    """Whether a mount that is not ours may be added to the sidecar."""
    path = mount.get("mountPath") if isinstance(mount, dict) else None
    if not isinstance(path, str) or posixpath.normpath(path) != path.rstrip("/"):
        return False
    return mount_fits(path) and any(_inside(path, allowed) for allowed in paths)


def mount_fits(path: str) -> bool:
    """Whether a neighbour's mount at this path hides nothing that the sidecar reads."""
    if not path.startswith(MOUNT_ROOTS) or path in MOUNT_ROOTS:
        return False
    return not any(_inside(path, ours) or _inside(ours, path) for ours in RESERVED_MOUNTS)


def _inside(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def likely(name_or_path: str) -> str:
    """Who probably added that variable or mount, and how to keep it away from the sidecar."""
    for beginning, who, remedy in _KNOWN:
        if name_or_path.startswith(beginning):
            return f" (by {who}, it seems; to keep it away: {remedy})"
    return ""
