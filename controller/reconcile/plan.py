"""What a reconciliation wants: objects, a status, events, and when to look again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from controller.api.objects import Object, uid
from controller.api.v1alpha1 import API_VERSION
from controller.issuing.authority import PrivateKey

MANAGER: Final = "tokenward-controller"
NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
AUTHSERVER: Final = "tokenward-authserver"
KEPT: Final = "tokenward.dev/kept"

_KEPT_TEXT: Final = (
    "This object stays when its MCPAuthServer is deleted: sessions need it. "
    "To remove it, and every session with it: kubectl delete {kind} {name}"
)


@dataclass(frozen=True)
class Makers:
    """Where key material comes from: a P-256 key, and 32 random bytes."""

    private_key: Callable[[], PrivateKey]
    encryption_key: Callable[[], bytes]


@dataclass(frozen=True)
class Event:
    """Something that happened to an object, for `kubectl describe`.

    `facts` are fields of the log line that says the same.
    """

    type: str  # Normal or Warning
    reason: str
    message: str
    facts: Mapping[str, str] = field(default_factory=dict)


def certificate_issued(serial: str, ends: datetime, name: str = "") -> Event:
    """The event of a new leaf, which ends at `ends`; the command line reads its facts."""
    text = f"{ends:%Y-%m-%dT%H:%M:%SZ}"
    message = f"{name}, serial {serial}, ends {text}" if name else f"serial {serial}, ends {text}"
    return Event("Normal", "CertificateIssued", message, {"serial": serial, "ends": text})


@dataclass(frozen=True)
class Plan:
    """Work for the cluster, in this order: create, update, apply, delete.

    `create`: made where there is none, and never overwritten. `update`: replaced, if they still
    have the resource version that they carry. `apply`: server-side apply of our own fields.
    `certificates` are cert-manager's, which a cluster may not have.
    """

    create: tuple[Object, ...] = ()
    update: tuple[Object, ...] = ()
    apply: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    certificates: tuple[Object, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    again_at: datetime | None = None
    ends: datetime | None = None  # of the credential


def labels(instance: str) -> dict[str, str]:
    """The labels of every object that an MCPAuthServer is made of."""
    return {
        NAME_LABEL: AUTHSERVER,
        INSTANCE_LABEL: instance,
        MANAGED_BY_LABEL: MANAGER,
        "app.kubernetes.io/part-of": "tokenward",
    }


def owner_reference(owner: Object, kind: str) -> dict[str, Any]:
    """Makes the garbage collector delete the object with its owner."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": False,
    }


def kept(kind: str, name: str) -> dict[str, str]:
    """The annotation of objects that outlive their owner."""
    return {KEPT: _KEPT_TEXT.format(kind=kind.lower(), name=name)}
