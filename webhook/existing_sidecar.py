"""Pure: whether a sidecar that is already in the pod is the one that we would inject.

The name proves nothing. Fields that decide what runs, as which user and with which files must equal
ours. Other fields may be added: the API server, LimitRanger and other webhooks add some between two
passes, and later Kubernetes versions add more. Compute resources and the pull policy may change.
"""

from collections.abc import Mapping
from typing import Any, Final

# A field that ours does not have must be absent: each of these changes what runs or what it sees.
_EXACT: Final = (
    "image", "command", "args", "workingDir", "env", "envFrom", "volumeMounts", "volumeDevices",
    "lifecycle", "restartPolicy", "restartPolicyRules", "ports", "readinessProbe", "stdin", "tty",
)  # fmt: skip
_AT_LEAST_OURS: Final = ("startupProbe", "livenessProbe", "securityContext")

# Platforms fill these in where ours has none. None of them weakens the context.
_FILLED_BY_PLATFORMS: Final = frozenset({"runAsUser", "runAsGroup", "seLinuxOptions"})


def container_differences(present: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """The fields in which the present sidecar is not ours; empty if it is intact."""
    differing = [name for name in _EXACT if (present.get(name) or None) != ours.get(name)]
    differing += [
        name for name in _AT_LEAST_OURS if not is_superset(present.get(name), ours.get(name))
    ]
    context = present.get("securityContext")
    if "securityContext" not in differing and _weakened(context, ours["securityContext"]):
        differing.append("securityContext")
    return differing


def _weakened(context: Any, ours: Mapping[str, Any]) -> bool:
    """Whether the context has a setting beside ours that no platform fills in."""
    added = {name: value for name, value in context.items() if name not in ours}
    if added.pop("procMount", "Default") != "Default":
        return True
    if (added.pop("appArmorProfile", None) or {}).get("type") == "Unconfined":
        return True
    # Compared as a whole: `is_superset` would accept an `add` beside our `drop`.
    return bool(
        context["capabilities"] != ours["capabilities"] or set(added) - _FILLED_BY_PLATFORMS
    )


def is_superset(found: object, wanted: object) -> bool:
    """Whether `found` has everything of `wanted`. `found` may have more members."""
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
