"""Pods that opted in and have no sidecar: they were made while no webhook was in force.

Afterwards the webhook injects every such pod or refuses it, so what is here began before.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from chassis.workload_names import workload_of
from controller.api.objects import Object, annotations, dicts, labels, metadata

INJECT: Final = "tokenward.dev/inject"
INJECTED: Final = "tokenward.dev/injected"
_SERVER: Final = "tokenward.dev/server"
_NAME: Final = "app.kubernetes.io/name"


def without_sidecar(pods: Iterable[Object], namespace: Object | None) -> Mapping[str, list[str]]:
    """The names of such pods of one namespace, by the server that they are meant for."""
    whole = labels(namespace or {}).get(INJECT) == "enabled"
    lacking: dict[str, list[str]] = defaultdict(list)
    for pod in pods:
        wish = annotations(pod).get(INJECT)
        opted_in = wish == "true" or (whole and wish != "false")
        if opted_in and labels(pod).get(INJECTED) != "true":
            lacking[_server_of(pod)].append(str(metadata(pod).get("name")))
    return {server: sorted(names) for server, names in lacking.items()}


def _server_of(pod: Object) -> str:
    """As the webhook would name it: annotation, label, owner, the pod itself."""
    named = annotations(pod).get(_SERVER) or labels(pod).get(_NAME)
    return named or _owner_of(pod) or str(metadata(pod).get("name"))


def _owner_of(pod: Object) -> str:
    owners = dicts(metadata(pod).get("ownerReferences"))
    owner = next((one for one in owners if one.get("controller")), {})
    return workload_of(str(owner.get("kind", "")), str(owner.get("name", "")), labels(pod))
