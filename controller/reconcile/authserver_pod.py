"""The authserver's pod: one container, and every file that it reads."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from controller.api.auth_server import AuthServer
from controller.reconcile import authserver_file as file
from controller.reconcile import resource_map
from controller.reconcile.keys import KeyPlan

USER: Final = 15410


class Pod:
    """Renders the pod of one MCPAuthServer; `selector` are the labels of its Deployment."""

    def __init__(
        self, auth_server: AuthServer, image: str, keys: KeyPlan, selector: Mapping[str, str]
    ) -> None:
        self._auth_server, self._image, self._keys = auth_server, image, keys
        self._selector = dict(selector)
        self._name = auth_server.name

    def spec(self, config_map: str) -> dict[str, Any]:
        """The pod's spec; its configuration is in the ConfigMap of this name."""
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


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _secret_volume(name: str, secret: str) -> dict[str, Any]:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _source(kind: str, reference: Mapping[str, Any], where: str) -> dict[str, Any]:
    item = {"key": str(reference.get("key")), "path": where}
    return {kind: {"name": str(reference.get("name")), "items": [item]}}
