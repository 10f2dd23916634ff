"""Pure: the compute resources of the sidecar in this pod.

Requests and a memory limit are always set, because quotas and autoscalers need them. Two
exceptions: a Guaranteed pod stays Guaranteed, and a pod with pod-level resources keeps its budget.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from webhook.annotations import PREFIX
from webhook.pod_view import Container, Spec
from webhook.quantity import InvalidQuantity, Quantity
from webhook.reasons import Reason, Violation
from webhook.settings import Profile, ResourceAmounts, as_strings

_KINDS: Final = ("cpu", "memory")

# A Guaranteed pod needs a CPU limit. The sidecar starts within three seconds on this one.
_GUARANTEED_CPU: Final = Quantity.parse("200m")


def compute(
    requested: Mapping[str, Quantity], profile: Profile, spec: Spec, others: Sequence[Container]
) -> tuple[ResourceAmounts, list[Violation]]:
    """The sidecar's amounts and what is wrong with what was requested.

    `others` are the pod's containers without the sidecar.
    """
    guaranteed = _guaranteed(others)
    if not (requested or spec.resources or guaranteed):
        return profile.amounts, []
    given = profile.defaults | dict(requested)
    if spec.resources:
        # With pod-level resources, set only the amounts that annotations request.
        given = profile.ephemeral_storage | dict(requested)
    elif guaranteed:
        given.setdefault("cpu-limit", _within(_GUARANTEED_CPU, profile))
        given |= {
            f"{kind}-request": given[f"{kind}-limit"]
            for kind in _KINDS
            if f"{kind}-request" not in requested
        }
    refusals = []
    for kind in _KINDS:
        request, limit = given.get(f"{kind}-request"), given.get(f"{kind}-limit")
        if request is None or limit is None or request.value <= limit.value:
            continue
        if f"{kind}-request" in requested:
            refusals.append(_above(kind, request, limit))
        else:
            given[f"{kind}-request"] = limit
    return as_strings(given), refusals


def _within(amount: Quantity, profile: Profile) -> Quantity:
    """The amount, or the nearest that the profile allows as a CPU limit."""
    bounds = profile.cpu_limit
    least = max(amount, bounds.min, key=lambda quantity: quantity.value)
    return min(least, bounds.max, key=lambda quantity: quantity.value)


def _above(kind: str, request: Quantity, limit: Quantity) -> Violation:
    return Violation(
        Reason.BAD_RESOURCES,
        f"annotation {PREFIX}{kind}-request is {request}, above the limit of {limit}; "
        f"allowed: a limit ({PREFIX}{kind}-limit) of at least the request",
    )


def _guaranteed(containers: Sequence[Container]) -> bool:
    """Whether every container limits CPU and memory to what it requests (Kubernetes QoS)."""
    for container in containers:
        limits = container.resources.limits if container.resources is not None else None
        if container.resources is None or not limits:
            return False
        requests = container.resources.requests or {}
        for kind in _KINDS:
            if kind not in limits or not _same(requests.get(kind, limits[kind]), limits[kind]):
                return False
    return bool(containers)


def _same(one: object, other: object) -> bool:
    try:
        return Quantity.parse(str(one)).value == Quantity.parse(str(other)).value
    except InvalidQuantity:
        return one == other
