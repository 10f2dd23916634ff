"""Pure: settings of a pod that let a process outside the sidecar reach into the sidecar.

Each rule is a cheap test first. Nearly all pods pass every test, so only a failed one makes text.
"""

import posixpath
from collections.abc import Iterator, Sequence
from typing import Final

from webhook.pod_view import Container, Spec, Volume
from webhook.reasons import Reason, Violation, quoted
from webhook.settings import Profile
from webhook.sidecar_spec import CONTAINER

# Capabilities that reach other processes' memory or the node's files. Container runtimes accept
# them in any case, with and without the prefix.
DENIED_CAPABILITIES: Final = frozenset(
    {
        "ALL",
        "BPF",  # kernel programs that read memory
        "CHECKPOINT_RESTORE",  # reads the memory of other processes
        "DAC_READ_SEARCH",  # opens files of the node by handle
        "PERFMON",  # traces the kernel and other processes
        "SYS_ADMIN",  # mounts, joins namespaces
        "SYS_MODULE",  # loads kernel code
        "SYS_PTRACE",  # reads the memory of other processes
        "SYS_RAWIO",  # reads the node's memory and disks
    }
)
# Meshes need these two, and runtimes give NET_RAW to root by default. They read what passes on the
# pod's loopback: JWTs and tokens, which the app has anyway, but not the key.
_SNIFFING: Final = frozenset({"NET_ADMIN", "NET_RAW"})

# On the node: credentials of every pod, the kubelet's own, runtime sockets, every process.
PROTECTED_HOST_PATHS: Final = (
    "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker",
    "/var/lib/rancher", "/var/lib/k0s", "/etc/kubernetes", "/proc",
    "/run/containerd", "/run/crio", "/run/docker.sock", "/run/k3s", "/run/podman",
    "/var/run/containerd", "/var/run/crio", "/var/run/docker.sock", "/var/run/podman",
)  # fmt: skip


def containers(spec: Spec) -> list[Container]:
    """The pod's own containers: init and app, without our sidecar."""
    every = [*(spec.initContainers or ()), *spec.containers]
    return [container for container in every if container.name != CONTAINER]


def unsafe_settings(
    spec: Spec, others: Sequence[Container], profile: Profile
) -> Iterator[Violation]:
    """Ways in which a process outside the sidecar's container would reach into it.

    `others` are the pod's own containers, as `containers` gives them.
    """
    if _on_windows(spec):
        yield Violation(Reason.WINDOWS, "Windows pods are not supported; the sidecar needs Linux")
    if spec.hostNetwork or spec.hostPID or spec.hostIPC:
        yield from _host_namespaces(spec)
    if spec.shareProcessNamespace and not profile.allow_shared_process_namespace:
        yield Violation(
            Reason.SHARED_PROCESS_NAMESPACE,
            "shareProcessNamespace: true is not allowed; the app could read the sidecar's key; "
            "a profile may allow it",
        )
    for volume in spec.volumes or ():
        if volume.hostPath is not None:
            yield from _host_path(volume)
    for container in others:
        if container.securityContext is not None:
            yield from _privileges(container, profile)
    user = spec.securityContext.runAsUser if spec.securityContext is not None else None
    if user is not None and user == profile.run_as_user:
        yield _same_user("the pod", user)


def _on_windows(spec: Spec) -> bool:
    if spec.os is not None and spec.os.name == "windows":
        return True
    return spec.nodeSelector is not None and "windows" in (
        spec.nodeSelector.get("kubernetes.io/os"),
        spec.nodeSelector.get("beta.kubernetes.io/os"),
    )


def _host_namespaces(spec: Spec) -> Iterator[Violation]:
    for name, shared, exposed in (
        (
            "hostNetwork",
            spec.hostNetwork,
            "every process on the node could ask for this workload's tokens",
        ),
        ("hostPID", spec.hostPID, "processes on the node and in this pod see each other's files"),
        ("hostIPC", spec.hostIPC, "processes on the node and in this pod share memory"),
    ):
        if shared:
            yield Violation(Reason.HOST_NAMESPACE, f"{name}: true is not allowed; {exposed}")


def _privileges(container: Container, profile: Profile) -> Iterator[Violation]:
    context = container.securityContext
    if context is None:
        return
    if context.privileged:
        yield Violation(
            Reason.PRIVILEGED,
            f"{described(container)} is privileged; it could read the sidecar's key on the node",
        )
    added = context.capabilities.add if context.capabilities is not None else None
    if added and (denied := DENIED_CAPABILITIES & {capability(name) for name in added}):
        yield Violation(
            Reason.PRIVILEGED,
            f"{described(container)} adds {', '.join(sorted(denied))}; it could read the memory of "
            "other processes or the node's files",
        )
    if context.runAsUser is not None and context.runAsUser == profile.run_as_user:
        yield _same_user(described(container), context.runAsUser)


def capability(name: str) -> str:
    """The kernel's name without the prefix: `cap_sys_admin` is `SYS_ADMIN`."""
    return name.upper().removeprefix("CAP_")


def _host_path(volume: Volume) -> Iterator[Violation]:
    path = volume.hostPath.path if volume.hostPath is not None else None
    folder = posixpath.normpath("/" + (path or "")).replace("//", "/").rstrip("/") + "/"
    if any(
        f"{own}/".startswith(folder) or folder.startswith(f"{own}/") for own in PROTECTED_HOST_PATHS
    ):
        yield Violation(
            Reason.HOST_PATH,
            f"volume {quoted(str(volume.name))} mounts {quoted(str(path))} of the node; it gives "
            "access to the credentials of pods or to the container runtime",
        )


def sniffs(container: Container) -> bool:
    """Whether the container adds a capability that reads the pod's loopback traffic."""
    context = container.securityContext
    added = context.capabilities.add if context is not None and context.capabilities else None
    return bool(added) and not _SNIFFING.isdisjoint(map(capability, added or ()))


def described(container: Container) -> str:
    return f"container {quoted(container.name)}"


def _same_user(name: str, user: int) -> Violation:
    return Violation(
        Reason.SAME_USER, f"{name} runs as user {user}, which is the sidecar's; use another"
    )
