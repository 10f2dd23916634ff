"""Whether this process, with its configuration in force, patches a pod as it should.

Asked before a configuration takes force, and so before the webhook is ready: one that cannot patch
fails every opted-in pod of the cluster.
"""

from typing import Any, Final

import jsonpatch

from webhook import pod_view
from webhook.annotations import INJECT
from webhook.evaluate import evaluate
from webhook.reasons import Reason
from webhook.settings import Settings
from webhook.sidecar_spec import CONTAINER

_POD: Final[dict[str, Any]] = {
    "metadata": {"name": "self-test", "annotations": {INJECT: "true"}},
    "spec": {"containers": [{"name": "app", "image": "app"}]},
}


def fault(settings: Settings) -> str | None:
    """What is wrong; None if a sample pod gets the sidecar once and, patched, no second time."""
    namespace = "default" if "default" not in settings.never_inject else "self-test"
    first = evaluate(pod_view.read(_POD), namespace, settings, namespace_opted_in=False)
    if first.reason is not Reason.INJECTED:
        return f"self-test: a sample pod is {first.decision}: {first.reason.value}"
    patched = jsonpatch.apply_patch(_POD, list(first.operations))
    names = [container["name"] for container in patched["spec"]["initContainers"]]
    if names != [CONTAINER]:
        return "self-test: the patch does not add the sidecar"
    second = evaluate(pod_view.read(patched), namespace, settings, namespace_opted_in=False)
    if second.reason is not Reason.ALREADY_INJECTED:
        return f"self-test: the patched pod is {second.decision}: {second.reason.value}"
    return None
