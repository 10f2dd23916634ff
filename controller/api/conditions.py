"""Conditions of a status (Kubernetes API conventions), and the closed list of their reasons."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from controller.api.objects import dicts, format_time

Status = Literal["True", "False", "Unknown"]

MAX_MESSAGE = 4096


class Reason(StrEnum):
    """Why a condition has its status. Each is explained in docs/reference/conditions.md."""

    # Accepted
    ACCEPTED = "Accepted"
    NOT_PERMITTED = "NotPermitted"
    CONFLICT = "Conflict"
    NO_SUCH_AUTH_SERVER = "NoSuchAuthServer"
    NO_SUCH_UPSTREAM = "NoSuchUpstream"
    INVALID_RESOURCE = "InvalidResource"
    # Programmed
    PROGRAMMED = "Programmed"
    NOT_ACCEPTED = "NotAccepted"
    WAITING_FOR_AUTH_SERVER = "WaitingForAuthServer"
    MAP_FULL = "MapFull"
    # CertificateReady and CertificatesReady
    ISSUED = "Issued"
    NAMESPACE_NOT_PREPARED = "NamespaceNotPrepared"
    AUTHORITY_NOT_READY = "AuthorityNotReady"
    AUTHORITY_INVALID = "AuthorityInvalid"
    WAITING_FOR_ISSUER = "WaitingForIssuer"
    CERTIFICATE_UNFIT = "CertificateUnfit"
    ISSUED_PER_POD = "IssuedPerPod"
    SECRET_NOT_OURS = "SecretNotOurs"  # noqa: S105 - a reason
    # NetworkPolicyReady, of servers that ask for one
    APP_PORT_CLOSED = "AppPortClosed"
    APP_PORT_OPEN = "AppPortOpen"
    NETWORK_POLICY_NOT_OURS = "NetworkPolicyNotOurs"
    # ConfigurationValid
    VALID = "Valid"
    CHECKING = "Checking"
    INVALID = "Invalid"
    REFERENCE_MISSING = "ReferenceMissing"
    # KeysReady
    KEYS_READY = "KeysReady"
    KEY_MISSING = "KeyMissing"
    KEY_INVALID = "KeyInvalid"
    # StorageReady
    BOUND = "Bound"
    WAITING_FOR_VOLUME = "WaitingForVolume"
    CONFIGURED = "Configured"
    # Available
    AVAILABLE = "Available"
    WAITING_FOR_PODS = "WaitingForPods"
    # Ready
    READY = "Ready"
    OLD_SIDECAR_ALLOWED = "OldSidecarAllowed"
    KEY_READABLE_IN_NAMESPACE = "KeyReadableInNamespace"
    PODS_WITHOUT_SIDECAR = "PodsWithoutSidecar"


@dataclass(frozen=True)
class Condition:
    """What is known of one aspect of an object."""

    type: str
    status: Status
    reason: Reason
    message: str

    @property
    def holds(self) -> bool:
        return self.status == "True"


def render(
    conditions: Iterable[Condition], before: object, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The list for `status.conditions`.

    `before` is the list that the object has. `lastTransitionTime` stays where the status stays.
    """
    former = {str(one.get("type")): one for one in dicts(before)}
    return [_render(one, former.get(one.type, {}), generation, now) for one in conditions]


def _render(
    condition: Condition, before: Mapping[str, Any], generation: int, now: datetime
) -> dict[str, Any]:
    same = before.get("status") == condition.status and before.get("lastTransitionTime")
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason.value,
        "message": condition.message[:MAX_MESSAGE],
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if same else format_time(now),
    }


def summary(conditions: Iterable[Condition], ready_reason: Reason = Reason.READY) -> Condition:
    """Ready: true where all hold; else the first that does not is the reason.

    Conditions come in the order of their causes.
    """
    missing = [one for one in conditions if not one.holds]
    if not missing:
        return Condition("Ready", "True", ready_reason, "")
    first = missing[0]
    return Condition("Ready", "False", first.reason, f"{first.type}: {first.message}")


def find(status: object, kind: str) -> Mapping[str, Any] | None:
    """The condition of this type in a status as the API server has it."""
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    return next((one for one in dicts(conditions) if one.get("type") == kind), None)
