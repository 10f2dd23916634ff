"""Recorded pods, and what others do to an injected one."""

import copy
from typing import Any

from tests.webhook.pods import (
    sidecar_of,
)

CREATED = [
    "pod-create-bare",
    "pod-create-cronjob",
    "pod-create-dry-run",
    "pod-create-generate-name",
    "pod-create-job",
    "pod-create-replicaset",
    "pod-create-statefulset",
]


def after_plugins(found: dict[str, Any]) -> dict[str, Any]:
    """What the API server's defaults, LimitRanger and other webhooks make of an injected pod."""
    later = copy.deepcopy(found)
    ours = sidecar_of(later)
    ours["terminationMessagePath"] = "/dev/termination-log"
    ours["imagePullPolicy"] = "Always"
    ours["livenessProbe"]["successThreshold"] = 1
    ours["securityContext"]["procMount"] = "Default"
    ours["resources"]["limits"]["ephemeral-storage"] = "1Gi"
    ours["resources"]["limits"]["cpu"] = "300m"
    ours["fieldOfALaterKubernetes"] = True
    later["metadata"]["labels"]["team"] = "x"
    later["spec"]["tolerations"] = []
    later["spec"]["initContainers"].insert(0, {"name": "mesh", "image": "m", "env": []})
    return later


TAMPERED: dict[str, dict[str, Any]] = {
    "image": {"image": "registry.example.com/evil@sha256:" + "b" * 64},
    "command": {"command": ["sh"]},
    "args": {"args": ["-c", "cat"]},
    "workingDir": {"workingDir": "/tmp"},
    "env": {"env": [{"name": "PYTHONPATH", "value": "/x"}]},
    "envFrom": {"envFrom": [{"configMapRef": {"name": "x"}}]},
    "volumeMounts": {"volumeMounts": []},
    "volumeDevices": {"volumeDevices": [{"name": "x", "devicePath": "/dev/x"}]},
    "lifecycle": {"lifecycle": {"postStart": {"exec": {"command": ["sh"]}}}},
    "restartPolicy": {"restartPolicy": None},
    "ports": {"ports": [{"name": "tokenward-ops", "containerPort": 15501, "hostPort": 15501}]},
    "readinessProbe": {"readinessProbe": {"exec": {"command": ["sh"]}}},
    "stdin": {"stdin": True},
    "postStart": {"lifecycle": None},
    "preStop": {"lifecycle": {"preStop": {"exec": {"command": ["sh"]}}}},
    "startupProbe": {"startupProbe": {"exec": {"command": ["sh"]}}},
    "livenessProbe": {"livenessProbe": {"exec": {"command": ["sh"]}}},
}
