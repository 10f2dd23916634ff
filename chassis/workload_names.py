"""The name of the workload that owns a pod, as the objects of Kubernetes show it."""

import re
from collections.abc import Mapping
from typing import Final

# Jobs of a CronJob are named after it and the scheduled minute of the Unix epoch: 26 million was in
# 2019. A date such as 20261128 is below, so `report-20261128` keeps its name.
_SCHEDULED_JOB: Final = re.compile(r"(.+)-((?:2[6-9]|[3-9][0-9])[0-9]{6})", re.ASCII)
_TEMPLATE_HASHES: Final = ("pod-template-hash", "rollouts-pod-template-hash")


def workload_of(kind: str, name: str, labels: Mapping[str, str]) -> str:
    """The name of what a person wrote.

    `kind` and `name` are of the pod's controller, `labels` of the pod: the Deployment of a
    ReplicaSet, the CronJob of a Job, else the controller itself.
    """
    if kind == "ReplicaSet":
        for label in _TEMPLATE_HASHES:
            if label in labels:
                return name.removesuffix(f"-{labels[label]}")
    if kind == "Job" and (scheduled := _SCHEDULED_JOB.fullmatch(name)):
        return scheduled[1]
    return name
