"""Pure: what in a pod keeps it from being injected, apart from its annotations.

Two questions: could somebody else than this pod's sidecar come to use its credential or its
endpoint (`hazards`), and does something of the pod stand where ours has to stand (`clashes`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from webhook import intact
from webhook.annotations import INJECTED_LABEL, OPS_PORT, PORT, WRITTEN_BY_US
from webhook.reasons import Reason, Refusal, quoted
from webhook.settings import CsiIdentity, PodCertificateIdentity, Profile, Settings
from webhook.sidecar_spec import CONTAINER, MOUNTS, VOLUMES, Sidecar, secret_name

_WITH_PTRACE: Final = frozenset({"SYS_PTRACE", "CAP_SYS_PTRACE", "ALL", "CAP_ALL"})


def containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pod's own containers: init and app, without our sidecar."""
    every: list[dict[str, Any]] = [
        *(spec.get("initContainers") or ()),
        *(spec.get("containers") or ()),
    ]
    return [container for container in every if container.get("name") != CONTAINER]


def hazards(
    spec: Mapping[str, Any], others: Sequence[Mapping[str, Any]], profile: Profile
) -> Iterator[Refusal]:
    """Ways in which a process outside the sidecar's container would reach into it.

    `others` are the pod's own containers, as `containers` gives them.
    """
    nodes = spec.get("nodeSelector") or {}
    if (spec.get("os") or {}).get("name") == "windows" or "windows" in (
        nodes.get("kubernetes.io/os"),
        nodes.get("beta.kubernetes.io/os"),
    ):
        yield Refusal(Reason.WINDOWS, "Windows pods are not supported; the sidecar needs Linux")
    for name, exposed in (
        ("hostNetwork", "every process on the node could ask for this workload's tokens"),
        ("hostPID", "processes on the node and in this pod see each other's files"),
        ("hostIPC", "processes on the node and in this pod share memory"),
    ):
        if spec.get(name):
            yield Refusal(Reason.HOST_NAMESPACE, f"{name}: true is not allowed; {exposed}")
    if spec.get("shareProcessNamespace") and not profile.allow_shared_process_namespace:
        yield Refusal(
            Reason.SHARED_PROCESS_NAMESPACE,
            "shareProcessNamespace: true is not allowed; the app could read the sidecar's key; "
            "a profile may allow it",
        )
    for container in others:
        yield from _privileges(container, profile)
    pod_user = (spec.get("securityContext") or {}).get("runAsUser")
    if pod_user is not None and pod_user == profile.run_as_user:
        yield _same_user("the pod", pod_user)


def _privileges(container: Mapping[str, Any], profile: Profile) -> Iterator[Refusal]:
    context = container.get("securityContext")
    if not context:
        return
    if context.get("privileged"):
        yield Refusal(
            Reason.PRIVILEGED,
            f"{_called(container)} is privileged; it could read the sidecar's key on the node",
        )
    added = (context.get("capabilities") or {}).get("add") or ()
    if _WITH_PTRACE.intersection(added):
        yield Refusal(
            Reason.PRIVILEGED,
            f"{_called(container)} adds SYS_PTRACE; it could read others' memory",
        )
    user = context.get("runAsUser")
    if user is not None and user == profile.run_as_user:
        yield _same_user(_called(container), user)


def _called(container: Mapping[str, Any]) -> str:
    return f"container {quoted(container['name'])}"


def _same_user(name: str, user: int) -> Refusal:
    return Refusal(
        Reason.SAME_USER, f"{name} runs as user {user}, which is the sidecar's; use another"
    )


def clashes(
    pod: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    sidecar: Sidecar,
    settings: Settings,
) -> Iterator[Refusal]:
    """What stands where ours has to stand, or reaches for what only the sidecar may hold."""
    spec = pod.get("spec") or {}
    present = [c for c in spec.get("initContainers") or () if c.get("name") == CONTAINER]
    yield from _names_taken(pod, spec, sidecar, present)
    yield from _unknown_containers(others, sidecar)
    for container in others:
        yield from _mounts(container)
        yield from _ports(container, sidecar)
    yield from _credential_users(spec, others, sidecar, settings)


def _names_taken(
    pod: Mapping[str, Any],
    spec: Mapping[str, Any],
    sidecar: Sidecar,
    present: Sequence[Mapping[str, Any]],
) -> Iterator[Refusal]:
    in_apps = any(c.get("name") == CONTAINER for c in spec.get("containers") or ())
    if in_apps or len(present) > 1:
        yield Refusal(
            Reason.RESERVED_NAME,
            f"the container name {CONTAINER} is reserved; remove the container",
        )
    elif present and (differing := intact.container_differences(present[0], sidecar.container)):
        yield Refusal(
            Reason.RESERVED_NAME,
            f"the pod already has a container {CONTAINER} that is not the one we inject "
            f"(it differs in {', '.join(differing)}); remove it, and what else we wrote if the pod "
            "is a copy",
        )
    wanted = {volume["name"]: volume for volume in sidecar.volumes}
    for volume in spec.get("volumes") or ():
        name = volume.get("name")
        if name in wanted and not (present and intact.holds(volume, wanted[name])):
            yield Refusal(
                Reason.RESERVED_NAME, f"the volume name {name} is reserved; remove the volume"
            )
    if not present:
        yield from _keys_taken(pod.get("metadata") or {})


def _keys_taken(metadata: Mapping[str, Any]) -> Iterator[Refusal]:
    for key in WRITTEN_BY_US:
        if key in (metadata.get("annotations") or {}):
            yield Refusal(
                Reason.RESERVED_KEY, f"annotation {key} is written by the webhook; remove it"
            )
    if INJECTED_LABEL in (metadata.get("labels") or {}):
        yield Refusal(
            Reason.RESERVED_KEY, f"label {INJECTED_LABEL} is written by the webhook; remove it"
        )


def _unknown_containers(others: Sequence[Mapping[str, Any]], sidecar: Sidecar) -> Iterator[Refusal]:
    names = {container["name"] for container in others}
    for key, named in (
        ("containers", sidecar.containers or frozenset()),
        ("skip-containers", sidecar.skip_containers),
    ):
        for name in sorted(named - names):
            yield Refusal(
                Reason.NO_SUCH_CONTAINER,
                f"annotation tokenward.dev/{key} names {quoted(name)}, which the pod does not "
                f"have; allowed: {', '.join(sorted(names))[:300]}",
            )


def _mounts(container: Mapping[str, Any]) -> Iterator[Refusal]:
    for mount in container.get("volumeMounts") or ():
        path = str(mount.get("mountPath", "")).rstrip("/")
        if mount.get("name") in VOLUMES:
            yield Refusal(
                Reason.RESERVED_MOUNT,
                f"{_called(container)} mounts {mount['name']}, which only the sidecar may mount",
            )
        elif path == MOUNTS or path.startswith(f"{MOUNTS}/"):
            yield Refusal(
                Reason.RESERVED_MOUNT,
                f"{_called(container)} mounts {quoted(path)}, which is reserved",
            )


def _ports(container: Mapping[str, Any], sidecar: Sidecar) -> Iterator[Refusal]:
    for port in container.get("ports") or ():
        for ours, key in ((sidecar.port, PORT), (sidecar.ops_port, OPS_PORT)):
            if ours in (port.get("containerPort"), port.get("hostPort")):
                yield Refusal(
                    Reason.PORT_CLASH,
                    f"{_called(container)} uses port {ours}, which the sidecar "
                    f"needs; move the sidecar with annotation {key}",
                )


def _credential_users(
    spec: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    sidecar: Sidecar,
    settings: Settings,
) -> Iterator[Refusal]:
    secret = secret_name(sidecar.server)
    for volume in spec.get("volumes") or ():
        if volume.get("name") not in VOLUMES and _yields_credential(volume, secret, settings):
            yield Refusal(
                Reason.CREDENTIAL_REACHED,
                f"volume {quoted(str(volume.get('name')))} would give the app the sidecar's "
                "credential; remove it",
            )
    for container in others:
        if secret in _secrets_of(container):
            yield Refusal(
                Reason.CREDENTIAL_REACHED,
                f"{_called(container)} takes variables from Secret {secret}, "
                "which is the sidecar's; remove them",
            )


def _yields_credential(volume: Mapping[str, Any], secret: str, settings: Settings) -> bool:
    identity = settings.identity
    sources = (volume.get("projected") or {}).get("sources") or ()
    if (volume.get("secret") or {}).get("secretName") == secret:
        return True
    if any((source.get("secret") or {}).get("name") == secret for source in sources):
        return True
    if isinstance(identity, CsiIdentity):
        return bool((volume.get("csi") or {}).get("driver") == identity.driver)
    return isinstance(identity, PodCertificateIdentity) and any(
        (source.get("podCertificate") or {}).get("signerName") == identity.signer_name
        for source in sources
    )


def _secrets_of(container: Mapping[str, Any]) -> Iterator[str | None]:
    for entry in container.get("env") or ():
        if (taken_from := entry.get("valueFrom")) is not None:
            yield (taken_from.get("secretKeyRef") or {}).get("name")
    for source in container.get("envFrom") or ():
        yield (source.get("secretRef") or {}).get("name")
