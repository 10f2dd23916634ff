"""Whether this process, with its configuration in force, patches a pod as it should.

Asked before a configuration takes force, and so before the webhook is ready: one that cannot patch
fails every opted-in pod of the cluster.
"""

from typing import Any, Final

import jsonpatch

from webhook import pod_view
from webhook.annotations import INJECT, SERVER
from webhook.evaluate import evaluate
from webhook.reasons import Reason
from webhook.settings import Settings
from webhook.sidecar_spec import CONTAINER

_SPEC: Final[dict[str, Any]] = {"containers": [{"name": "app", "image": "app"}]}


def fault(settings: Settings) -> str | None:
    """What is wrong; None if a sample pod gets the sidecar once and, patched, no second time.

    Where the configuration lists the servers, the sample is of the first one that may have a
    sidecar. Where it lists none of those, every pod is denied, and nothing is left to be tried.
    """
    sample = _sample(settings)
    if sample is None:
        return None
    namespace, pod = sample
    first = evaluate(pod_view.read(pod), namespace, settings, namespace_opted_in=False)
    if first.reason is not Reason.INJECTED:
        return f"self-test: a sample pod is {first.decision}: {first.reason.value}"
    patched = jsonpatch.apply_patch(pod, list(first.operations))
    names = [container["name"] for container in patched["spec"]["initContainers"]]
    if names != [CONTAINER]:
        return "self-test: the patch does not add the sidecar"
    second = evaluate(pod_view.read(patched), namespace, settings, namespace_opted_in=False)
    if second.reason is not Reason.ALREADY_INJECTED:
        return f"self-test: the patched pod is {second.decision}: {second.reason.value}"
    return None


def _sample(settings: Settings) -> tuple[str, dict[str, Any]] | None:
    """A namespace, and a pod of it that should get the sidecar."""
    if settings.servers is None:
        namespace = "default" if "default" not in settings.never_inject else "self-test"
        return namespace, _pod({INJECT: "true"})
    for one in settings.servers:
        if one.namespace not in settings.never_inject:
            return one.namespace, _pod({INJECT: "true", SERVER: one.name})
    return None


def _pod(annotations: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "self-test", "annotations": annotations}, "spec": _SPEC}
