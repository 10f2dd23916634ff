"""Pure: pod + namespace + settings -> Inject, Skip or Deny. Nothing here sees HTTP or a cluster.

A denial carries every fault found, so that its author mends the pod once.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from chassis.spiffe_id import is_dns_label
from chassis.workload_names import workload_of
from webhook import annotations as contract
from webhook import options as injection_options
from webhook.conflicts import conflicts
from webhook.options import InjectionOptions
from webhook.pod_safety import containers, sniffs, unsafe_settings
from webhook.pod_view import Container, Metadata, Pod
from webhook.reasons import Reason, Violation, quoted, warning
from webhook.settings import Settings
from webhook.sidecar_resources import compute
from webhook.sidecar_spec import CONTAINER, URL_VARIABLE, Sidecar, build

# Kept out by the manifests too; injecting here could keep a cluster from starting.
SYSTEM_NAMESPACES: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})

_MIRROR: Final = "kubernetes.io/config.mirror"
_NAME_LABEL: Final = "app.kubernetes.io/name"
_INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
_PROXIES: Final = frozenset({"HTTP_PROXY", "ALL_PROXY"})
_NO_METADATA: Final = Metadata()


class Inject(msgspec.Struct, frozen=True):
    sidecar: Sidecar
    options: InjectionOptions
    warnings: tuple[str, ...] = ()


class Skip(msgspec.Struct, frozen=True):
    reason: Reason
    warnings: tuple[str, ...] = ()


class Deny(msgspec.Struct, frozen=True):
    refusals: tuple[Violation, ...]


Decision = Inject | Skip | Deny

_RESOURCE_NEEDED: Final = Violation(
    Reason.BAD_VALUE,
    f"annotation {contract.GATEWAY} needs {contract.RESOURCE}: the gateway tells clients where to "
    "sign in",
)


def decide(pod: Pod, namespace: str, settings: Settings, *, namespace_opted_in: bool) -> Decision:
    """What is to happen to a pod created in `namespace`; a pod's word beats its namespace's."""
    metadata, spec = pod.metadata or _NO_METADATA, pod.spec
    annotations = metadata.annotations or {}
    if (skip := _skipped(annotations, namespace, settings, namespace_opted_in)) is not None:
        return skip
    options, misread = injection_options.read(annotations, metadata.labels or {}, settings)
    profile, refusals = settings.profiles[options.profile], list(misread)
    if metadata.namespace and metadata.namespace != namespace:
        refusals.append(
            Violation(Reason.NAMESPACE_MISMATCH, "the pod names another namespace than the request")
        )
    named = options.server or _server_name(pod, metadata)
    if isinstance(named, Violation):
        refusals.append(named)
    others = containers(spec)
    refusals.extend(unsafe_settings(spec, others, profile))
    amounts, above = compute(options.requested, profile, spec, others)
    refusals.extend(above)
    # A pod without a usable name is looked at as well, so that it learns of its other faults.
    server = named if isinstance(named, str) else "unnamed"
    resource = options.resource
    if resource is None and settings.servers is not None:
        resource = settings.resources.get((namespace, server))
        if resource is None and isinstance(named, str):
            refusals.append(_not_known(server))
    if options.gateway is not None and resource is None:
        refusals.append(_RESOURCE_NEEDED)
    sidecar = build(namespace, server, resource, options.sidecar_options, amounts, settings)
    refusals.extend(conflicts(pod, others, options, sidecar, settings))
    if refusals:
        return Deny(tuple(refusals))
    doubts = [*_shared_name(metadata, options, sidecar), *_doubts(others, options, sidecar)]
    return Inject(sidecar, options, tuple([warning(text) for text in doubts]))


def _not_known(server: str) -> Violation:
    """A controller's list may come later than the pod; its ReplicaSet tries again."""
    return Violation(
        Reason.SERVER_NOT_KNOWN,
        f"server {server} is not known yet; it needs an MCPServerAuth of that name in its "
        f"namespace, or the annotation {contract.RESOURCE}",
    )


def _skipped(
    annotations: Mapping[str, str], namespace: str, settings: Settings, namespace_opted_in: bool
) -> Skip | None:
    asks = contract.INJECT in annotations or namespace_opted_in
    if not asks:
        return Skip(Reason.NOT_REQUESTED)
    if injection_options.opted(annotations) is False:
        return Skip(Reason.OPTED_OUT)
    if namespace in SYSTEM_NAMESPACES or namespace in settings.never_inject:
        text = f"tokenward: pods in namespace {namespace} are never injected"
        return Skip(Reason.NAMESPACE_NEVER_INJECTED, (warning(text),))
    if _MIRROR in annotations:
        return Skip(Reason.MIRROR_POD)
    return None


def _server_name(pod: Pod, metadata: Metadata) -> str | Violation:
    """The workload's name where no annotation says it.

    A pod that already holds the sidecar keeps the name it was injected under: a copy has lost
    its labels, and a policy may have added some since.
    """
    name, origin = _named_by_status(pod, metadata), f"annotation {contract.STATUS}"
    if name is None:
        name, origin = (metadata.labels or {}).get(_NAME_LABEL), f"label {_NAME_LABEL}"
    if name is None:
        name, origin = _owner_name(metadata), "its owner"
    if name is None:
        name, origin = metadata.name, "its name"
    if not name:
        # The API server appends random characters later; they are no part of a workload's name.
        name, origin = (metadata.generateName or "").rstrip("-."), "generateName"
    if is_dns_label(name):
        return name
    return Violation(
        Reason.NO_SERVER_NAME,
        f"{origin} gives {quoted(name)}, which cannot name a workload; set annotation "
        f"{contract.SERVER} (lower-case letters, digits and hyphens, at most 63)",
    )


def _named_by_status(pod: Pod, metadata: Metadata) -> str | None:
    status = (metadata.annotations or {}).get(contract.STATUS)
    if status is None or all(c.name != CONTAINER for c in pod.spec.initContainers or ()):
        return None
    try:
        server = json.loads(status)["server"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return server if isinstance(server, str) else None


def _owner_name(metadata: Metadata) -> str | None:
    owner = next((o for o in metadata.ownerReferences or () if o.controller), None)
    if owner is None:
        return None
    return workload_of(owner.kind or "", owner.name or "", metadata.labels or {})


def _shared_name(metadata: Metadata, options: InjectionOptions, sidecar: Sidecar) -> Iterator[str]:
    """The label that names the application may be the same for several workloads."""
    labels = metadata.labels or {}
    if options.server is not None or labels.get(_NAME_LABEL) != sidecar.server:
        return
    instance = labels.get(_INSTANCE_LABEL, sidecar.server)
    if instance != sidecar.server:
        yield (
            f"tokenward: the identity is {sidecar.server[:24]}, but instance is "
            f"{quoted(instance[:20])}; set {contract.SERVER} if others share it"
        )


def _doubts(
    others: Sequence[Container], options: InjectionOptions, sidecar: Sidecar
) -> Iterator[str]:
    """Warnings for the pod's author although the pod is injected."""
    gateway = sidecar.gateway
    for container in others:
        if gateway is not None and any(
            port.containerPort == gateway.target for port in container.ports or ()
        ):
            yield (
                f"tokenward: a Service must target port {gateway.port}, not {gateway.target} of "
                f"container {quoted(container.name[:24])}"
            )
        if sniffs(container):
            yield (
                f"tokenward: container {quoted(container.name[:24])} adds NET_RAW or NET_ADMIN; it "
                "can read tokens on loopback"
            )
        if not container.env:
            continue
        values = {entry.name or "": entry.value for entry in container.env}
        if values.get(URL_VARIABLE, sidecar.url) != sidecar.url and options.applies_to(
            container.name
        ):
            yield f"tokenward: container {quoted(container.name)} keeps its own {URL_VARIABLE}"
        if not _PROXIES.isdisjoint(map(str.upper, values)) and not _spares_loopback(values):
            yield (
                f"tokenward: container {quoted(container.name)} has a proxy; "
                "add 127.0.0.1 to its NO_PROXY"
            )


def _spares_loopback(values: Mapping[str, str | None]) -> bool:
    listed = f"{values.get('NO_PROXY') or ''},{values.get('no_proxy') or ''}"
    return any(host.strip() in ("*", "127.0.0.1", "127.0.0.0/8") for host in listed.split(","))
