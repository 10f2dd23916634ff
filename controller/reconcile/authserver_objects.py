"""The Kubernetes objects that run an authserver. Pods satisfy Pod Security `restricted`."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from controller.api.auth_server import AuthServer
from controller.api.objects import Object, path
from controller.issuing.leaves import Template
from controller.reconcile import authserver_file as file
from controller.reconcile import cert_manager, resource_map
from controller.reconcile.authserver_network import Network
from controller.reconcile.authserver_pod import Pod
from controller.reconcile.keys import KeyPlan
from controller.reconcile.plan import (
    AUTHSERVER,
    INSTANCE_LABEL,
    MANAGED_BY_LABEL,
    MANAGER,
    NAME_LABEL,
    kept,
    labels,
    owner_reference,
)

# What a container leaves here, a kubelet puts into the pod's status.
TERMINATION_LOG: Final = "/dev/termination-log"
RESTART: Final = "tokenward.dev/restart"
CHECKED: Final = "tokenward.dev/checked"


class Objects:
    """Renders the objects of one MCPAuthServer.

    `content` are the members of the configuration file; `deployed` is the Deployment as it is.
    """

    def __init__(
        self,
        auth_server: AuthServer,
        image: str,
        content: Mapping[str, Any],
        keys: KeyPlan,
        deployed: Object | None,
    ) -> None:
        self._auth_server, self._image, self._content = auth_server, image, content
        self._keys, self._deployed = keys, deployed
        self._name = auth_server.name

    def owned(self) -> Iterator[Object]:
        """Everything that goes with its owner, apart from ConfigMaps and certificates."""
        yield self._made("v1", "ServiceAccount", self._name, automountServiceAccountToken=False)
        yield self._deployment()
        network = Network(self._auth_server, self._selector, self._made)
        yield network.public_service()
        yield network.internal_service()
        yield network.policy()
        if self._auth_server.postgresql is not None:
            yield network.postgresql_policy()
        yield network.disruption_budget()

    def volume_claim(self) -> Object:
        """The database's volume, which stays."""
        sqlite = self._auth_server.sqlite
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOncePod"],
            "resources": {"requests": {"storage": str(sqlite.get("size", "1Gi"))}},
        }
        if sqlite.get("storageClassName"):
            spec["storageClassName"] = sqlite["storageClassName"]
        made = self._made("v1", "PersistentVolumeClaim", self._name, spec=spec)
        made["metadata"].pop("ownerReferences")
        made["metadata"]["annotations"] = kept("PersistentVolumeClaim", self._name)
        return made

    def configuration(self, text: str) -> Object:
        """The ConfigMap that is in force."""
        return self._made("v1", "ConfigMap", f"{self._name}-config", data={file.CONFIG_FILE: text})

    def candidate(self, text: str) -> tuple[Object, Object]:
        """A ConfigMap and a Job that has the authserver itself check it."""
        name = candidate_name(self._name, text)
        config = self._made("v1", "ConfigMap", name, data={file.CONFIG_FILE: text})
        pod = self._pod.spec(name)
        pod["restartPolicy"] = "Never"
        container = pod["containers"][0]
        for member in ("ports", "readinessProbe", "livenessProbe"):
            del container[member]
        container["args"] = [*container["args"], "--check", "--report", TERMINATION_LOG]
        # The check opens no database; the volume may be in use by the running pod.
        container["volumeMounts"] = [
            one for one in container["volumeMounts"] if one["name"] != "database"
        ]
        pod["volumes"] = [one for one in pod["volumes"] if one["name"] != "database"]
        pod.pop("topologySpreadConstraints", None)
        checking = {**labels(self._name), NAME_LABEL: "tokenward-authserver-check"}
        job = self._made(
            "batch/v1",
            "Job",
            name,
            spec={
                "backoffLimit": 1,
                "activeDeadlineSeconds": 300,
                "ttlSecondsAfterFinished": 600,
                "template": {"metadata": {"labels": checking}, "spec": pod},
            },
        )
        return config, job

    def authorities(self, bundle: bytes) -> Object:
        """The ConfigMap with the authorities of workloads."""
        return self._made(
            "v1",
            "ConfigMap",
            f"{self._name}-workload-authorities",
            data={"ca.crt": bundle.decode("ascii")},
        )

    def shard(self, number: int, text: str) -> Object:
        """The ConfigMap of one shard of the resource map."""
        return self._made(
            "v1",
            "ConfigMap",
            resource_map.config_map_name(self._name, number),
            data={resource_map.file_name(number): text},
        )

    def serving_secret(self, data: Mapping[str, str]) -> Object:
        """The Secret with the internal listener's certificate; `data` is in base64."""
        return self._made(
            "v1", "Secret", f"{self._name}-internal", type="kubernetes.io/tls", data=dict(data)
        )

    def certificate(self, name: str, template: Template) -> Object:
        """cert-manager's Certificate of a listener."""
        meta = self._made(cert_manager.API_VERSION, cert_manager.KIND, name)["metadata"]
        issuer = self._auth_server.server_certificates.issuer
        return cert_manager.certificate(meta, template, issuer)

    def _made(self, api_version: str, kind: str, name: str, **members: Any) -> dict[str, Any]:
        return {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": self._auth_server.namespace,
                "labels": labels(self._name),
                "ownerReferences": [owner_reference(self._auth_server.raw, "MCPAuthServer")],
            },
            **members,
        }

    @property
    def _pod(self) -> Pod:
        return Pod(self._auth_server, self._image, self._keys, self._selector)

    @property
    def _selector(self) -> dict[str, str]:
        """Cannot change: a Deployment that was made by hand keeps its own, if our pods match it."""
        ours = labels(self._name)
        deployed = path(self._deployed, "spec", "selector", "matchLabels") if self._deployed else {}
        if deployed and all(ours.get(name) == value for name, value in deployed.items()):
            return dict(deployed)
        return {NAME_LABEL: AUTHSERVER, INSTANCE_LABEL: self._name}

    def _deployment(self) -> Object:
        replicated = self._auth_server.postgresql is not None
        strategy: dict[str, Any] = {"type": "Recreate"}  # SQLite has one writer
        if replicated:
            rolling = {"maxUnavailable": 0, "maxSurge": 1}
            strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
        return self._made(
            "apps/v1",
            "Deployment",
            self._name,
            spec={
                "replicas": self._auth_server.replicas,
                "strategy": strategy,
                "selector": {"matchLabels": self._selector},
                "template": {
                    "metadata": {
                        "labels": labels(self._name),
                        "annotations": {RESTART: self._restart_hash()},
                    },
                    "spec": self._pod.spec(f"{self._name}-config"),
                },
            },
        )

    def _restart_hash(self) -> str:
        """Changes with what the authserver reads at its start only."""
        members = {k: v for k, v in self._content.items() if k not in file.RELOADED}
        return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()[:16]


def candidate_name(auth_server: str, text: str) -> str:
    """The name of the Job that checks this text, and of its ConfigMap."""
    return f"{auth_server}-check-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def is_candidate(obj: Object, auth_server: str) -> bool:
    """Whether the object is a ConfigMap or Job that `candidate` made."""
    meta = obj.get("metadata", {})
    ours = meta.get("labels", {}).get(MANAGED_BY_LABEL) == MANAGER
    return ours and str(meta.get("name", "")).startswith(f"{auth_server}-check-")
