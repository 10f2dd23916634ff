"""Pure: whether a sidecar that is already in the pod is the one we would inject.

Never judged by name. What decides what runs, as whom and with which files must be exactly ours;
beside it, fields may be added, because the API server's defaults, LimitRanger and other webhooks
add some between two passes, and later Kubernetes versions add more. CPU, memory and the pull
policy are theirs to change.
"""

from collections.abc import Mapping
from typing import Any, Final

# Absent in ours means absent: each of these changes what runs or what it can see.
_EXACT: Final = (
    "image", "command", "args", "workingDir", "env", "envFrom", "volumeMounts", "volumeDevices",
    "lifecycle", "restartPolicy", "restartPolicyRules", "ports", "readinessProbe", "stdin", "tty",
)  # fmt: skip
_AT_LEAST_OURS: Final = ("startupProbe", "livenessProbe", "securityContext")

# What platforms fill into a security context where we leave it out; none of it loosens ours.
_FILLED_BY_PLATFORMS: Final = frozenset({"runAsUser", "runAsGroup", "seLinuxOptions"})


def container_differences(found: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """The fields in which the sidecar found is not ours; empty if it is intact."""
    differing = [name for name in _EXACT if (found.get(name) or None) != ours.get(name)]
    differing += [
        name for name in _AT_LEAST_OURS if not is_superset(found.get(name), ours.get(name))
    ]
    context = found.get("securityContext")
    if "securityContext" not in differing and _weakened(context, ours["securityContext"]):
        differing.append("securityContext")
    return differing


def _weakened(found: Any, ours: Mapping[str, Any]) -> bool:
    """Whether something beside our own settings is more than a platform's filling."""
    added = {name: value for name, value in found.items() if name not in ours}
    if added.pop("procMount", "Default") != "Default":
        return True
    if (added.pop("appArmorProfile", None) or {}).get("type") == "Unconfined":
        return True
    # Compared whole: `holds` would pass an `add` beside our `drop`.
    return bool(found["capabilities"] != ours["capabilities"] or set(added) - _FILLED_BY_PLATFORMS)


def is_superset(found: object, wanted: object) -> bool:
    """Whether `found` has everything of `wanted`; more members may stand beside ours."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and is_superset(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(is_superset(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return found == wanted
