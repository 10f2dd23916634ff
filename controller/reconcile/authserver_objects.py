"""The Kubernetes objects that run an authserver. Pods satisfy Pod Security `restricted`."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from controller.api.objects import Object, path
from controller.api.v1alpha1 import AuthServer
from controller.reconcile import authserver_file as file
from controller.reconcile import resource_map
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

USER: Final = 15410
RESTART: Final = "tokenward.dev/restart"
CHECKED: Final = "tokenward.dev/checked"

_POSTGRESQL_PORT: Final = 5432
_PRIVATE: Final = [
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
]  # fmt: skip


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
        yield self._public_service()
        yield self._internal_service()
        yield self._network_policy()
        if self._auth_server.postgresql is not None:
            yield self._postgresql_policy()
        yield self._disruption_budget()

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
        pod = self._pod_spec(name)
        pod["restartPolicy"] = "Never"
        container = pod["containers"][0]
        for member in ("ports", "readinessProbe", "livenessProbe"):
            del container[member]
        container["args"] = [*container["args"], "--check"]
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

    def certificate(self, hosts: Sequence[str]) -> Object:
        """cert-manager's Certificate of the internal listener."""
        settings = self._auth_server.server_certificates
        return self._made(
            "cert-manager.io/v1",
            "Certificate",
            f"{self._name}-internal",
            spec={
                "secretName": f"{self._name}-internal",
                "dnsNames": list(hosts),
                "duration": go_duration(settings.duration),
                "renewBefore": go_duration(settings.renew_before),
                "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
                "usages": ["digital signature", "server auth"],
                "issuerRef": dict(settings.issuer),
            },
        )

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
                    "spec": self._pod_spec(f"{self._name}-config"),
                },
            },
        )

    def _restart_hash(self) -> str:
        """Changes with what the authserver reads at its start only."""
        members = {k: v for k, v in self._content.items() if k not in file.RELOADED}
        return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()[:16]

    def _pod_spec(self, config_map: str) -> dict[str, Any]:
        template = self._auth_server.spec.get("template")
        template = template if isinstance(template, Mapping) else {}
        spec: dict[str, Any] = {
            "serviceAccountName": self._name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 40,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self._container(template)],
            "volumes": list(self._volumes(config_map)),
        }
        for member in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
            if template.get(member):
                spec[member] = template[member]
        if self._auth_server.replicas > 1:
            spec["topologySpreadConstraints"] = [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": self._selector},
                }
            ]
        return spec

    def _container(self, template: Mapping[str, Any]) -> dict[str, Any]:
        default = {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "384Mi"}}
        mounts = [
            {"name": "config", "mountPath": file.CONFIG_DIR, "readOnly": True},
            {"name": "internal", "mountPath": file.INTERNAL_DIR, "readOnly": True},
            {"name": "workload-authorities", "mountPath": file.AUTHORITIES_DIR, "readOnly": True},
            {"name": "encryption-keys", "mountPath": file.ENCRYPTION_DIR, "readOnly": True},
            {"name": "signing-keys", "mountPath": file.SIGNING_DIR, "readOnly": True},
            {"name": "resources", "mountPath": file.RESOURCES_DIR, "readOnly": True},
        ]
        if self._references():
            mounts.append({"name": "upstreams", "mountPath": file.UPSTREAMS_DIR, "readOnly": True})
        if self._postgresql_sources():
            mounts.append(
                {"name": "postgresql", "mountPath": file.POSTGRESQL_DIR, "readOnly": True}
            )
        if self._auth_server.postgresql is None:
            mounts.append({"name": "database", "mountPath": file.DATABASE_DIR})
        return {
            "name": "authserver",
            "image": self._image,
            "args": ["--config", f"{file.CONFIG_DIR}/{file.CONFIG_FILE}"],
            "ports": [
                _port("public", file.PUBLIC_PORT),
                _port("internal", file.INTERNAL_PORT),
                _port("ops", file.OPS_PORT),
            ],
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": "ops"},
                "periodSeconds": 5,
                "timeoutSeconds": 2,
            },
            "livenessProbe": {
                "httpGet": {"path": "/healthz", "port": "ops"},
                "periodSeconds": 10,
                "timeoutSeconds": 5,
            },
            "resources": template.get("resources") or default,
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }

    def _volumes(self, config_map: str) -> Iterator[dict[str, Any]]:
        yield {"name": "config", "configMap": {"name": config_map}}
        yield _secret_volume("internal", f"{self._name}-internal")
        yield {
            "name": "workload-authorities",
            "configMap": {"name": f"{self._name}-workload-authorities"},
        }
        yield _secret_volume("encryption-keys", self._keys.encryption.secret)
        yield _secret_volume("signing-keys", self._keys.signing.secret)
        # All are declared from the start: a new one would be a new pod.
        names = [resource_map.config_map_name(self._name, n) for n in range(resource_map.SHARDS)]
        shards = [{"configMap": {"name": name, "optional": True}} for name in names]
        yield {"name": "resources", "projected": {"sources": shards}}
        if sources := self._references():
            yield {"name": "upstreams", "projected": {"sources": sources, "defaultMode": 0o440}}
        if sources := self._postgresql_sources():
            yield {"name": "postgresql", "projected": {"sources": sources, "defaultMode": 0o440}}
        if self._auth_server.postgresql is None:
            yield {"name": "database", "persistentVolumeClaim": {"claimName": self._name}}

    def _references(self) -> list[dict[str, Any]]:
        """Secrets and ConfigMaps that upstreams name, each at its own path."""
        sources = []
        for upstream in self._auth_server.upstreams:
            if isinstance(secret := upstream.get("clientSecretRef"), Mapping):
                sources.append(_source("secret", secret, file.secret_path(secret)))
            if isinstance(bundle := upstream.get("caBundleRef"), Mapping):
                sources.append(_source("configMap", bundle, file.config_map_path(bundle)))
        return sources

    def _postgresql_sources(self) -> list[dict[str, Any]]:
        postgresql, sources = self._auth_server.postgresql or {}, []
        if isinstance(secret := postgresql.get("passwordSecretRef"), Mapping):
            sources.append(_source("secret", secret, "password"))
        if isinstance(bundle := postgresql.get("caConfigMapRef"), Mapping):
            sources.append(_source("configMap", bundle, "ca.crt"))
        return sources

    def _public_service(self) -> Object:
        """For MCP clients and browsers, through whatever ends TLS in front of it."""
        template = self._auth_server.spec.get("template")
        template = template if isinstance(template, Mapping) else {}
        made = self._made(
            "v1",
            "Service",
            self._name,
            spec={
                "type": template.get("serviceType", "ClusterIP"),
                "selector": self._selector,
                "ports": [{"name": "http", "port": 80, "targetPort": "public", "protocol": "TCP"}],
            },
        )
        if template.get("serviceAnnotations"):
            made["metadata"]["annotations"] = dict(template["serviceAnnotations"])
        return made

    def _internal_service(self) -> Object:
        """For sidecars only."""
        port = {
            "name": "internal",
            "port": file.INTERNAL_PORT,
            "targetPort": "internal",
            "protocol": "TCP",
        }
        spec = {"selector": self._selector, "ports": [port]}
        return self._made("v1", "Service", f"{self._name}-internal", spec=spec)

    def _network_policy(self) -> Object:
        web = [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": _PRIVATE}},
            {"ipBlock": {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10"]}},
        ]
        system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
        injected = {"matchLabels": {"tokenward.dev/injected": "true"}}
        controller = {"matchLabels": {NAME_LABEL: MANAGER}}
        return self._made(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            self._name,
            spec={
                "podSelector": {"matchLabels": self._selector},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"ports": [_tcp(file.PUBLIC_PORT)]},
                    {
                        "from": [{"namespaceSelector": {}, "podSelector": injected}],
                        "ports": [_tcp(file.INTERNAL_PORT)],
                    },
                    {"from": [{"podSelector": controller}], "ports": [_tcp(file.OPS_PORT)]},
                ],
                "egress": [
                    {
                        "to": [{"namespaceSelector": system}],
                        "ports": [{"protocol": "UDP", "port": 53}, _tcp(53)],
                    },
                    {"to": web, "ports": [_tcp(443)]},
                ],
            },
        )

    def _postgresql_policy(self) -> Object:
        return self._made(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            f"{self._name}-postgresql",
            spec={
                "podSelector": {"matchLabels": self._selector},
                "policyTypes": ["Egress"],
                "egress": [
                    {
                        "to": [{"ipBlock": {"cidr": block}} for block in _PRIVATE[:3]],
                        "ports": [_tcp(_POSTGRESQL_PORT)],
                    }
                ],
            },
        )

    def _disruption_budget(self) -> Object:
        return self._made(
            "policy/v1",
            "PodDisruptionBudget",
            self._name,
            spec={
                "minAvailable": 1 if self._auth_server.replicas > 1 else 0,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": self._selector},
            },
        )


def go_duration(time: timedelta) -> str:
    """As cert-manager and the API server write it."""
    seconds = int(time.total_seconds())
    return f"{seconds // 3600}h{seconds % 3600 // 60}m{seconds % 60}s"


def candidate_name(auth_server: str, text: str) -> str:
    """The name of the Job that checks this text, and of its ConfigMap."""
    return f"{auth_server}-check-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def is_candidate(obj: Object, auth_server: str) -> bool:
    """Whether the object is a ConfigMap or Job that `candidate` made."""
    meta = obj.get("metadata", {})
    ours = meta.get("labels", {}).get(MANAGED_BY_LABEL) == MANAGER
    return ours and str(meta.get("name", "")).startswith(f"{auth_server}-check-")


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _tcp(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}


def _secret_volume(name: str, secret: str) -> dict[str, Any]:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _source(kind: str, reference: Mapping[str, Any], where: str) -> dict[str, Any]:
    item = {"key": str(reference.get("key")), "path": where}
    return {kind: {"name": str(reference.get("name")), "items": [item]}}
