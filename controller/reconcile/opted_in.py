"""Pods that opted in and have no sidecar: they were made while no webhook was in force.

Afterwards the webhook injects every such pod or refuses it, so what is here began before.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from controller.api.objects import Object, annotations, dicts, labels, metadata

INJECT: Final = "tokenward.dev/inject"
INJECTED: Final = "tokenward.dev/injected"
_SERVER: Final = "tokenward.dev/server"
_NAME: Final = "app.kubernetes.io/name"
_TEMPLATE_HASHES: Final = ("pod-template-hash", "rollouts-pod-template-hash")
_SCHEDULED_JOB: Final = re.compile(r"(.+)-(?:2[6-9]|[3-9][0-9])[0-9]{6}", re.ASCII)


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
    name = str(owner.get("name", ""))
    if owner.get("kind") == "ReplicaSet":
        for label in _TEMPLATE_HASHES:
            if label in labels(pod):
                return name.removesuffix(f"-{labels(pod)[label]}")
    scheduled = _SCHEDULED_JOB.fullmatch(name) if owner.get("kind") == "Job" else None
    return scheduled[1] if scheduled is not None else name
