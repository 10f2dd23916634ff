"""The objects that the checks look at, read once."""

from dataclasses import dataclass, field
from typing import Final

from tokenward.cluster.kubectl import Kubectl, KubectlFailed, Object

INJECT: Final = "tokenward.dev/inject"
RESOURCES: Final = ("mcpauthservers", "mcpserverauths")
GROUP: Final = "tokenward.dev"

_NOT_SERVED: Final = "the server doesn't have a resource type"


@dataclass(frozen=True)
class Seen:
    """Lists of Kubernetes objects. `admission_refusal`: why a plain opted-in pod is refused.

    It is None where the webhook is not installed. `unread` names kinds that we may not read.
    """

    definitions: list[Object] = field(default_factory=list)
    auth_servers: list[Object] = field(default_factory=list)
    server_auths: list[Object] = field(default_factory=list)
    webhooks: list[Object] = field(default_factory=list)
    policies: list[Object] = field(default_factory=list)
    bindings: list[Object] = field(default_factory=list)
    deployments: list[Object] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    admission_refusal: str | None = None
    unread: list[str] = field(default_factory=list)


def read(kubectl: Kubectl, namespace: str) -> Seen:
    """`namespace` is that of the webhook. Raises KubectlFailed where there is no cluster."""
    unread: list[str] = []

    def listed(kind: str, *options: str) -> list[Object]:
        try:
            return kubectl.objects(kind, *options)
        except KubectlFailed as failed:
            if "Forbidden" in str(failed):
                unread.append(kind)
            elif _NOT_SERVED not in str(failed):
                raise
            return []

    everywhere = "--all-namespaces"
    webhooks = _ours(listed("mutatingwebhookconfigurations"))
    return Seen(
        definitions=[
            one for one in listed("customresourcedefinitions") if one["spec"]["group"] == GROUP
        ],
        auth_servers=listed(f"{RESOURCES[0]}.{GROUP}", everywhere),
        server_auths=listed(f"{RESOURCES[1]}.{GROUP}", everywhere),
        webhooks=webhooks,
        policies=_ours(listed("validatingadmissionpolicies")),
        bindings=_ours(listed("validatingadmissionpolicybindings")),
        deployments=listed("deployments", "--namespace", namespace),
        pods=[one for one in listed("pods", everywhere) if opted_in(one)],
        admission_refusal=kubectl.refusal_of(_probe()) if webhooks else None,
        unread=unread,
    )


def opted_in(pod: Object) -> bool:
    """Whether the pod itself asks for a sidecar."""
    value = pod["metadata"].get("annotations", {}).get(INJECT)
    return value is not None and value != "false"


def _ours(objects: list[Object]) -> list[Object]:
    return [one for one in objects if one["metadata"]["name"].split("-")[0] == "tokenward"]


def _probe() -> Object:
    """A pod that is never created: only the API server's way to the webhook is of interest."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "tokenward-doctor-",
            "namespace": "default",
            "annotations": {INJECT: "true"},
        },
        "spec": {"containers": [{"name": "probe", "image": "registry.invalid/probe"}]},
    }
