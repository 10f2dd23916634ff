"""Pure: whether a sidecar that is already in the pod is the one that we would inject.

The name proves nothing. Fields that decide what runs, as which user and with which files must equal
ours. Other fields may be added: the API server, LimitRanger and other webhooks add some between two
passes, and later Kubernetes versions add more. Compute resources and the pull policy may change.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from webhook import neighbours

# A field that ours does not have must be absent: each of these changes what runs or what it sees.
_EXACT: Final = (
    "image", "command", "args", "workingDir", "envFrom", "volumeDevices",
    "lifecycle", "restartPolicy", "restartPolicyRules", "ports", "startupProbe", "readinessProbe",
    "stdin", "tty",
)  # fmt: skip
_AT_LEAST_OURS: Final = ("livenessProbe", "securityContext")

# Platforms fill these in where ours has none. None of them weakens the context.
_FILLED_BY_PLATFORMS: Final = frozenset({"runAsUser", "runAsGroup", "seLinuxOptions"})


def container_differences(
    present: Mapping[str, Any],
    ours: Mapping[str, Any],
    environment: Iterable[str] = (),
    mounts: Iterable[str] = (),
) -> list[str]:
    """The fields in which the present sidecar is not ours; empty if it is intact.

    `environment` and `mounts` are what neighbours may add: beginnings of variable names, and paths.
    """
    differing = [name for name in _EXACT if (present.get(name) or None) != ours.get(name)]
    if _without(present.get("env"), ours["env"], "name", environment) != ours["env"]:
        differing.append("env")
    volume_mounts = present.get("volumeMounts")
    if _without(volume_mounts, ours["volumeMounts"], "mountPath", mounts) != ours["volumeMounts"]:
        differing.append("volumeMounts")
    context = _with_one_drop(present.get("securityContext"))
    compared = {**present, "securityContext": context}
    differing += [
        name for name in _AT_LEAST_OURS if not is_superset(compared.get(name), ours.get(name))
    ]
    if "securityContext" not in differing and _weakened(context, ours["securityContext"]):
        differing.append("securityContext")
    return differing


def additions(present: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Names of variables and paths of mounts that somebody added, in the order found."""
    return [
        str(entry[key])
        for field, key in (("env", "name"), ("volumeMounts", "mountPath"))
        for entry in _entries(present.get(field))
        if entry.get(key) not in [own[key] for own in ours[field]]
    ]


def _entries(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _without(
    present: Any, ours: Sequence[Mapping[str, Any]], key: str, allowed: Iterable[str]
) -> list[Any]:
    """The entries but for those that a neighbour may add and that take no place of ours."""
    permitted = neighbours.variable_allowed if key == "name" else neighbours.mount_allowed
    taken = [own[key] for own in ours]
    return [
        entry
        for entry in present or ()
        if (isinstance(entry, dict) and entry.get(key) in taken) or not permitted(entry, allowed)
    ]


def _with_one_drop(context: Any) -> Any:
    """The context; a list that drops ALL drops no more with further names in it."""
    capabilities = context.get("capabilities") if isinstance(context, dict) else None
    if not isinstance(capabilities, dict) or "ALL" not in (capabilities.get("drop") or ()):
        return context
    return context | {"capabilities": capabilities | {"drop": ["ALL"]}}


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


def is_superset(present: object, wanted: object) -> bool:
    """Whether `found` has everything of `wanted`. `found` may have more members."""
    if isinstance(wanted, dict):
        return isinstance(present, dict) and all(
            key in present and is_superset(present[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(present, list)
            and len(present) == len(wanted)
            and all(is_superset(one, other) for one, other in zip(present, wanted, strict=True))
        )
    return present == wanted
