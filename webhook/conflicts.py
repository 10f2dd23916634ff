"""Pure: what in a pod conflicts with what the patch adds, or reaches the sidecar's credential.

Each rule is a cheap test first. Nearly all pods pass every test, so only a failed one makes text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from webhook import existing_sidecar, neighbours
from webhook.annotations import INJECTED_LABEL, WRITTEN_BY_US
from webhook.gateway_conflicts import gateway_conflicts
from webhook.options import InjectionOptions
from webhook.pod_safety import described
from webhook.pod_view import Container, Mount, Pod, Port, Projection, Spec, Volume
from webhook.reasons import EXPLAINED, Reason, Violation, quoted
from webhook.settings import CsiIdentity, PodCertificateIdentity, Settings
from webhook.sidecar_spec import CONTAINER, MOUNTS, Sidecar
from webhook.sidecar_volumes import VOLUMES, secret_name


def conflicts(
    pod: Pod,
    others: Sequence[Container],
    options: InjectionOptions,
    sidecar: Sidecar,
    settings: Settings,
) -> Iterator[Violation]:
    """What stands where ours has to stand, or reaches for what only the sidecar may hold."""
    yield from _names_taken(pod, others, sidecar, settings)
    if options.containers or options.skip_containers:
        yield from _unknown_containers(others, options)
    ours = sidecar.port_keys
    for container in others:
        for mount in container.volumeMounts or ():
            if mount.name in VOLUMES or (mount.mountPath or "").startswith(MOUNTS):
                yield from _mounted(container, mount)
        for port in container.ports or ():
            if port.containerPort in ours or port.hostPort in ours:
                yield from _port_taken(container, port, ours)
    if sidecar.gateway is not None:
        yield from gateway_conflicts(pod, others, sidecar.gateway)
    yield from _credential_users(pod.spec, others, sidecar, settings)


def _names_taken(
    pod: Pod, others: Sequence[Container], sidecar: Sidecar, settings: Settings
) -> Iterator[Violation]:
    spec = pod.spec
    present = [at for at, c in enumerate(spec.initContainers or ()) if c.name == CONTAINER]
    if len(others) < len(spec.containers) + len(spec.initContainers or ()):
        yield from _container_taken(pod, present, sidecar, settings)
    for at, volume in enumerate(spec.volumes or ()):
        if volume.name in VOLUMES and not (present and _is_ours(pod, at, sidecar)):
            yield Violation(
                Reason.RESERVED_NAME,
                f"the volume name {volume.name} is reserved; remove the volume",
            )
    if not present and pod.metadata is not None:
        annotations, labels = pod.metadata.annotations or {}, pod.metadata.labels or {}
        if INJECTED_LABEL in labels or not annotations.keys().isdisjoint(WRITTEN_BY_US):
            yield from _keys_taken(annotations, labels)


def _container_taken(
    pod: Pod, present: Sequence[int], sidecar: Sidecar, settings: Settings
) -> Iterator[Violation]:
    """`present`: the places of init containers with our name."""
    if len(present) != 1 or any(container.name == CONTAINER for container in pod.spec.containers):
        yield Violation(
            Reason.RESERVED_NAME,
            f"the container name {CONTAINER} is reserved; remove the container",
        )
    elif differing := _differences(pod, present[0], sidecar, settings):
        yield Violation(
            Reason.RESERVED_NAME,
            f"the pod already has a container {CONTAINER} that is not the one we inject "
            f"(it differs in {', '.join(differing)}); {_remedy(pod, present[0], sidecar)}",
        )


def _remedy(pod: Pod, at: int, sidecar: Sidecar) -> str:
    """What a person can do: another webhook is named by what it added."""
    present: dict[str, Any] = pod.raw()["spec"]["initContainers"][at]
    added = existing_sidecar.additions(present, sidecar.container)
    if not added:
        return "remove it, and what else we wrote if the pod is a copy"
    names = ", ".join(quoted(name) for name in added[:EXPLAINED])
    hint = next((text for name in added if (text := neighbours.likely(name))), "")
    return (
        f"another webhook added {names} to it{hint}; the operator may list it under neighbours in "
        "the webhook's configuration; if the pod is a copy, remove the container"
    )


def _differences(pod: Pod, at: int, sidecar: Sidecar, settings: Settings) -> list[str]:
    present: dict[str, Any] = pod.raw()["spec"]["initContainers"][at]
    allowed = settings.neighbours
    return existing_sidecar.container_differences(
        present, sidecar.container, allowed.environment, allowed.mounts
    )


def _is_ours(pod: Pod, at: int, sidecar: Sidecar) -> bool:
    present = pod.raw()["spec"]["volumes"][at]
    return any(
        existing_sidecar.is_superset(present, volume)
        for volume in sidecar.volumes
        if volume["name"] == present["name"]
    )


def _keys_taken(annotations: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[Violation]:
    for key in WRITTEN_BY_US:
        if key in annotations:
            yield Violation(
                Reason.RESERVED_KEY, f"annotation {key} is written by the webhook; remove it"
            )
    if INJECTED_LABEL in labels:
        yield Violation(
            Reason.RESERVED_KEY, f"label {INJECTED_LABEL} is written by the webhook; remove it"
        )


def _unknown_containers(
    others: Sequence[Container], options: InjectionOptions
) -> Iterator[Violation]:
    names = {container.name for container in others}
    # Once, however many are unknown; escaped, for nobody has looked at the pod's names yet.
    allowed = f"; allowed: {json.dumps(', '.join(sorted(names))[:300])[1:-1][:300]}"
    for key, named in (
        ("containers", options.containers or frozenset()),
        ("skip-containers", options.skip_containers),
    ):
        for at, name in enumerate(sorted(named - names)):
            yield Violation(
                Reason.NO_SUCH_CONTAINER,
                f"annotation tokenward.dev/{key} names {quoted(name)}, which the pod does not "
                f"have{allowed if at < EXPLAINED else ''}",
            )


def _mounted(container: Container, mount: Mount) -> Iterator[Violation]:
    path = (mount.mountPath or "").rstrip("/")
    if mount.name in VOLUMES:
        yield Violation(
            Reason.RESERVED_MOUNT,
            f"{described(container)} mounts {mount.name}, which only the sidecar may mount",
        )
    elif path == MOUNTS or path.startswith(f"{MOUNTS}/"):
        yield Violation(
            Reason.RESERVED_MOUNT,
            f"{described(container)} mounts {quoted(path)}, which is reserved",
        )


def _port_taken(
    container: Container, port: Port, port_keys: Mapping[int, str]
) -> Iterator[Violation]:
    for ours, key in port_keys.items():
        if ours in (port.containerPort, port.hostPort):
            yield Violation(
                Reason.PORT_CLASH,
                f"{described(container)} uses port {ours}, which the sidecar "
                f"needs; move the sidecar with annotation {key}",
            )


def _credential_users(
    spec: Spec, others: Sequence[Container], sidecar: Sidecar, settings: Settings
) -> Iterator[Violation]:
    secret = secret_name(sidecar.server)
    for volume in spec.volumes or ():
        if volume.name not in VOLUMES and _yields_credential(volume, secret, settings):
            yield Violation(
                Reason.CREDENTIAL_REACHED,
                f"volume {quoted(str(volume.name))} would give the app the sidecar's "
                "credential; remove it",
            )
    for container in others:
        if _takes_variables(container, secret):
            yield Violation(
                Reason.CREDENTIAL_REACHED,
                f"{described(container)} takes variables from Secret {secret}, "
                "which is the sidecar's; remove them",
            )


def _yields_credential(volume: Volume, secret: str, settings: Settings) -> bool:
    if volume.secret is not None and volume.secret.secretName == secret:
        return True
    if volume.projected is not None:
        for source in volume.projected.sources or ():
            # Every pod has a volume of sources that are neither.
            if source.secret is None and source.podCertificate is None:
                continue
            if _projects_credential(source, secret, settings):
                return True
    if volume.csi is None or not isinstance(settings.identity, CsiIdentity):
        return False
    return volume.csi.driver == settings.identity.driver


def _projects_credential(source: Projection, secret: str, settings: Settings) -> bool:
    if source.secret is not None and source.secret.name == secret:
        return True
    if source.podCertificate is None or not isinstance(settings.identity, PodCertificateIdentity):
        return False
    return source.podCertificate.signerName == settings.identity.signer_name


def _takes_variables(container: Container, secret: str) -> bool:
    for entry in container.env or ():
        taken = entry.valueFrom.secretKeyRef if entry.valueFrom is not None else None
        if taken is not None and taken.name == secret:
            return True
    for source in container.envFrom or ():
        if source.secretRef is not None and source.secretRef.name == secret:
            return True
    return False
