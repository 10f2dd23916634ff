"""Pure: settings of a pod that let a process outside the sidecar reach into the sidecar.

Each rule is a cheap test first. Nearly all pods pass every test, so only a failed one makes text.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from webhook.pod_view import Container, Spec
from webhook.reasons import Reason, Violation, quoted
from webhook.settings import Profile
from webhook.sidecar_spec import CONTAINER

_WITH_PTRACE: Final = frozenset({"SYS_PTRACE", "CAP_SYS_PTRACE", "ALL", "CAP_ALL"})


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
    if added and not _WITH_PTRACE.isdisjoint(added):
        yield Violation(
            Reason.PRIVILEGED,
            f"{described(container)} adds SYS_PTRACE; it could read others' memory",
        )
    if context.runAsUser is not None and context.runAsUser == profile.run_as_user:
        yield _same_user(described(container), context.runAsUser)


def described(container: Container) -> str:
    return f"container {quoted(container.name)}"


def _same_user(name: str, user: int) -> Violation:
    return Violation(
        Reason.SAME_USER, f"{name} runs as user {user}, which is the sidecar's; use another"
    )
