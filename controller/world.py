"""What every reconciliation shares: the caches, the index, the writer and the clocks."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from controller.api.auth_server import AuthServer
from controller.api.kinds import POD, SECRET, Kind
from controller.api.objects import Key, Object, annotations, dicts, labels, metadata, path
from controller.applier import Applier
from controller.issuing import rotation
from controller.issuing.authority import InvalidAuthority
from controller.issuing.pod_certificate_signer import SIDECAR
from controller.issuing.rotation import AuthorityState
from controller.map_probe import MapProbe
from controller.metrics import Metrics
from controller.reconcile import network_policy
from controller.reconcile.certificates import (
    Which,
    authority_secret,
    leaf_settings,
    plan_trust,
)
from controller.reconcile.index import Index
from controller.reconcile.opted_in import INJECTED
from controller.reconcile.plan import Makers
from controller.reconcile.resource_map import Map
from controller.settings import Settings
from controller.tenant_objects import TenantObjects

AUTH_SERVER: Final = "MCPAuthServer"
SERVER_AUTH: Final = "MCPServerAuth"
RESOURCE_MAP: Final = "ResourceMap"
WEBHOOK: Final = "Webhook"
POD_CERTIFICATE: Final = "PodCertificateRequest"
OPTED_IN_PODS: Final = "OptedInPods"

STATUS: Final = "tokenward.dev/status"
AUTHSERVER_CA: Final = "tokenward.dev/authserver-ca"


class Work(NamedTuple):
    """A key of the queue: what to reconcile."""

    kind: str
    key: Key


class Reads(Protocol):
    """What reconciliations read past the caches; `controller.cluster.Cluster` is one."""

    async def get(self, kind: Kind, key: Key) -> Object | None: ...

    async def list(
        self, kind: Kind, namespace: str = "", **selectors: str
    ) -> tuple[list[dict[str, Any]], str]: ...

    async def patch(
        self, kind: Kind, key: Key, change: Mapping[str, Any], subresource: str = ""
    ) -> Object: ...


@dataclass
class World:
    """`enqueue` asks for work now, or at a time."""

    settings: Settings
    cluster: Reads
    applier: Applier
    stores: Mapping[Kind, Mapping[Key, Object]]
    index: Index
    metrics: Metrics
    clock: Callable[[], datetime]
    makers: Makers
    probe: MapProbe
    enqueue: Callable[[Work, datetime | None], None]
    check: Callable[[], None]
    tenant_objects: TenantObjects
    maps: dict[Key, Map] = field(default_factory=dict)
    shown: dict[Key, list[Mapping[str, str]]] = field(default_factory=dict)
    pods_of: dict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    pods_without_bundle: int = 0
    without_sidecar: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    _authorities: dict[Key, tuple[object, AuthorityState | None]] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.settings.namespace

    def own(self, kind: Kind) -> dict[str, Object]:
        """The objects of a kind in our namespace, by name."""
        stored = self.stores[kind]
        return {key.name: one for key, one in stored.items() if key.namespace == self.namespace}

    def sidecar_images(self) -> Counter[str]:
        """How many running pods have each image of the sidecar."""
        return Counter(one for pod in self.stores[POD].values() if (one := sidecar_image(pod)))

    def authority(self, secret: str, *, foreign: bool) -> AuthorityState | None:
        """The authority in a Secret of ours, None where there is none that works."""
        key = Key(self.namespace, secret)
        stored = self.stores[SECRET].get(key)
        if stored is None:
            return None
        version = metadata(stored).get("resourceVersion")
        known = self._authorities.get(key)
        if known is not None and known[0] == version:
            return known[1]
        try:
            state = rotation.read_foreign(stored) if foreign else rotation.read(stored)
        except InvalidAuthority:
            state = None
        self._authorities[key] = (version, state)
        return state


def bundle_of(world: World, server: AuthServer, which: Which) -> bytes:
    """What peers of `workloads` or `servers` have to trust, in PEM; empty while it is unknown."""
    if leaf_settings(server, which).source != "CertManager":
        authority = authority_of(world, server, which)
        return authority.bundle if authority is not None else b""
    return plan_trust(server, which, world.own(SECRET)).bundle


def authority_of(world: World, server: AuthServer, which: Which) -> AuthorityState | None:
    """The authority `workloads` or `servers` of an MCPAuthServer, as it is in the cluster.

    None where it is not ours to sign.
    """
    if leaf_settings(server, which).source == "CertManager":
        return None
    named = path(server.authority(which), "secretRef", "name")
    secret = str(named or authority_secret(server.name, which))
    return world.authority(secret, foreign=named is not None)


def slim_pod(pod: dict[str, Any]) -> Object:
    """An injected pod without what nobody here reads: there may be thousands of them."""
    meta, sidecar = metadata(pod), _sidecar(pod)
    kept = {k: v for k, v in annotations(pod).items() if k in (STATUS, AUTHSERVER_CA)}
    port = network_policy.port_to_close(sidecar)
    marks = {INJECTED: labels(pod).get(INJECTED)} if port is None else dict(labels(pod))
    return {
        "metadata": {
            "name": meta.get("name"),
            "namespace": meta.get("namespace"),
            "uid": meta.get("uid"),
            "resourceVersion": meta.get("resourceVersion"),
            "labels": marks,
            # The bundle is the same text for all pods: kept once for all of them.
            "annotations": {k: _interned(v) for k, v in kept.items()},
        },
        "sidecarImage": _interned(str(sidecar.get("image", ""))),
        **({} if port is None else {network_policy.PORT_TO_CLOSE: port}),
        "status": {"phase": path(pod, "status", "phase")},
    }


def sidecar_image(pod: Object) -> str:
    """The image of the sidecar of an injected pod that has not ended; "" where there is none."""
    ended = path(pod, "status", "phase") in ("Succeeded", "Failed")
    return "" if ended else str(pod.get("sidecarImage", ""))


def image_of_sidecar(pod: Object) -> str:
    """Of a pod as the API server has it; "" where there is none."""
    return str(_sidecar(pod).get("image", ""))


def _sidecar(pod: Object) -> Object:
    containers = dicts(path(pod, "spec", "initContainers"))
    return next((one for one in containers if one.get("name") == SIDECAR), {})


_BUNDLES: dict[str, str] = {}


def _interned(text: str) -> str:
    if len(_BUNDLES) > 1000:
        _BUNDLES.clear()
    return _BUNDLES.setdefault(text, text)


def server_of_pod(pod: Object) -> Key | None:
    """The server whose sidecar a pod has, by the webhook's annotation; for counting only."""
    try:
        name = json.loads(annotations(pod).get(STATUS, ""))["server"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Key(str(metadata(pod).get("namespace")), name) if isinstance(name, str) else None
