"""Pure: what being injected means: the container, its volumes, and what the others get.

The container satisfies Pod Security `restricted` by itself; pod-level fields are never touched.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from chassis.spiffe_id import Workload
from chassis.version import VERSION
from webhook.annotations import (
    AUTHSERVER_CA,
    GATEWAY,
    INJECTED_LABEL,
    OPS_PORT,
    PORT,
    STATUS,
)
from webhook.gateway_options import GatewayOptions
from webhook.options import SidecarOptions
from webhook.settings import (
    DEFAULT_STREAM_MAX,
    CsiIdentity,
    PodCertificateIdentity,
    ResourceAmounts,
    SecretIdentity,
    Settings,
)

CONTAINER: Final = "tokenward-sidecar"
COMMAND: Final = ("python", "-m", "sidecar")
# Returns when the sidecar is ready, and fails where it does not get so.
WAIT_UNTIL_READY: Final = ("python", "-S", "-m", "sidecar.wait_until_ready")
CREDENTIAL_VOLUME: Final = "tokenward-credential"
CA_VOLUME: Final = "tokenward-authserver-ca"
NO_API_TOKEN_VOLUME: Final = "tokenward-no-api-token"  # noqa: S105 - a name
VOLUMES: Final = (CREDENTIAL_VOLUME, CA_VOLUME, NO_API_TOKEN_VOLUME)

URL_VARIABLE: Final = "TOKENWARD_URL"

OPS_PORT_NAME: Final = "tokenward-ops"
GATEWAY_PORT_NAME: Final = "tokenward-gw"

MOUNTS: Final = "/var/run/tokenward"
_CREDENTIAL_DIR: Final = f"{MOUNTS}/credential"
_CA_DIR: Final = f"{MOUNTS}/authserver-ca"
_CA_FILE: Final = "ca.pem"
_API_TOKEN_DIR: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a folder

# The sidecar runs as no user that owns the files, and only the sidecar mounts them.
_WORLD_READABLE: Final = 0o444

_KEY_PAIR: Final = [{"key": name, "path": name} for name in ("tls.crt", "tls.key")]
_LABELS: Final = {INJECTED_LABEL: "true"}
_CA_FIELD: Final = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{AUTHSERVER_CA}']"}
_CA_VOLUME: Final = {
    "name": CA_VOLUME,
    "downwardAPI": {
        "items": [{"path": _CA_FILE, "fieldRef": _CA_FIELD}],
        "defaultMode": _WORLD_READABLE,
    },
}
_NO_API_TOKEN_VOLUME: Final = {"name": NO_API_TOKEN_VOLUME, "emptyDir": {}}


class Sidecar(msgspec.Struct, frozen=True, eq=False):
    """Everything an injected pod has that it did not have before.

    One object for all pods alike in it: never changed, and compared by being the same one.
    """

    server: str
    config_hash: str
    container: dict[str, Any]
    volumes: tuple[dict[str, Any], ...]
    url: str
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    port: int
    ops_port: int
    gateway: GatewayOptions | None = None

    @property
    def port_keys(self) -> dict[int, str]:
        """The sidecar's ports, each with the annotation that moves it."""
        keys = {self.port: PORT, self.ops_port: OPS_PORT}
        return keys if self.gateway is None else keys | {self.gateway.port: GATEWAY}


def secret_name(server: str) -> str:
    return f"{server}-tokenward"


# The pods of a workload, and many workloads' pods at once, are alike in all that this takes, and
# nothing else of a pod comes in. Each of them is short, so what is remembered stays small.
@lru_cache(maxsize=256)
def build(
    namespace: str,
    server: str,
    sidecar_options: SidecarOptions,
    amounts: ResourceAmounts,
    settings: Settings,
) -> Sidecar:
    workload = Workload(namespace, server)
    return Sidecar(
        server=server,
        config_hash=settings.config_hashes[sidecar_options.profile],
        container=_container(workload, sidecar_options, amounts, settings),
        volumes=(
            {"name": CREDENTIAL_VOLUME, **_credential_source(workload, settings)},
            _CA_VOLUME,
            _NO_API_TOKEN_VOLUME,
        ),
        # Literally 127.0.0.1: "localhost" may resolve to ::1, where nobody listens.
        url=f"http://127.0.0.1:{sidecar_options.port}",
        annotations={
            STATUS: _status(workload, sidecar_options, settings),
            AUTHSERVER_CA: settings.authserver.ca_file.pem,
        },
        labels=_LABELS,
        port=sidecar_options.port,
        ops_port=sidecar_options.ops_port,
        gateway=sidecar_options.gateway,
    )


def _status(workload: Workload, sidecar_options: SidecarOptions, settings: Settings) -> str:
    status = {
        "version": VERSION,
        "profile": sidecar_options.profile,
        "server": workload.name,
        "config-hash": settings.config_hashes[sidecar_options.profile],
    }
    return msgspec.json.encode(status).decode("ascii")


def _container(
    workload: Workload,
    sidecar_options: SidecarOptions,
    amounts: ResourceAmounts,
    settings: Settings,
) -> dict[str, Any]:
    profile, ops_port, gateway = (
        sidecar_options.profile,
        sidecar_options.ops_port,
        sidecar_options.gateway,
    )
    container = {
        **_alike(profile, ops_port, None if gateway is None else gateway.port, settings),
        "env": _environment(workload, sidecar_options, settings),
    }
    if amounts:
        container["resources"] = _resources(amounts)
    return container


@lru_cache(maxsize=64)
def _alike(
    profile: str, ops_port: int, gateway_port: int | None, settings: Settings
) -> dict[str, Any]:
    """What the containers of many workloads have alike."""
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(COMMAND),
        "restartPolicy": "Always",
        # The token port is on loopback and needs no entry here.
        "ports": _ports(ops_port, gateway_port),
        # The kubelet goes on when the hook returns; a start-up probe, asked once a second, would
        # cost each pod half a second more. Neither hook nor probe reaches beyond the pod: one that
        # waited for the network would stop pods whose network is set up by a container further
        # down the list.
        "lifecycle": {"postStart": {"exec": {"command": list(WAIT_UNTIL_READY)}}},
        "livenessProbe": _probe("/healthz", ops_port, period=10, failures=3),
        "securityContext": _security_context(settings.profiles[profile].run_as_user),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": CREDENTIAL_VOLUME, "mountPath": _CREDENTIAL_DIR, "readOnly": True},
            {"name": CA_VOLUME, "mountPath": _CA_DIR, "readOnly": True},
            # An existing mount keeps ServiceAccount admission from adding the API token.
            {"name": NO_API_TOKEN_VOLUME, "mountPath": _API_TOKEN_DIR, "readOnly": True},
        ],
    }


def _ports(ops_port: int, gateway_port: int | None) -> list[dict[str, Any]]:
    ports = {OPS_PORT_NAME: ops_port}
    if gateway_port is not None:
        ports[GATEWAY_PORT_NAME] = gateway_port
    return [
        {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()
    ]


def _environment(
    workload: Workload, sidecar_options: SidecarOptions, settings: Settings
) -> list[dict[str, str]]:
    variables = {
        "TOKENWARD_AUTHSERVER_URL": settings.authserver.url,
        "TOKENWARD_AUTHSERVER_CA_FILE": f"{_CA_DIR}/{_CA_FILE}",
        "TOKENWARD_CREDENTIAL_DIR": _CREDENTIAL_DIR,
        "TOKENWARD_ISSUER": settings.issuer,
        "TOKENWARD_SCOPES": " ".join(settings.profiles[sidecar_options.profile].scopes),
        "TOKENWARD_PORT": str(sidecar_options.port),
        "TOKENWARD_OPS_PORT": str(sidecar_options.ops_port),
        "TOKENWARD_LOG_LEVEL": sidecar_options.log_level,
        "TOKENWARD_SPIFFE_ID": workload.spiffe_id(settings.trust_domain),
        "TOKENWARD_RESOURCE": sidecar_options.resource,
        "TOKENWARD_API_PROXY": settings.profiles[sidecar_options.profile].api_proxy or "",
    }
    if sidecar_options.gateway is not None:
        variables |= dict(sidecar_options.gateway.variables)
        variables["TOKENWARD_GATEWAY_STREAM_MAX"] = _changed(
            settings.profiles[sidecar_options.profile].gateway_stream_max_seconds
        )
    return [{"name": name, "value": value} for name, value in variables.items() if value]


def _changed(stream_max: int) -> str:
    """The variable's value; none where it is the sidecar's own default."""
    return "" if stream_max == DEFAULT_STREAM_MAX else str(stream_max)


@lru_cache(maxsize=64)
def _resources(amounts: ResourceAmounts) -> dict[str, dict[str, str]]:
    resources: dict[str, dict[str, str]] = {}
    for amount, text in amounts:
        kind, _, side = amount.rpartition("-")
        resources.setdefault(f"{side}s", {})[kind] = text
    return resources


def _probe(path: str, port: int, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _security_context(user: int | None) -> dict[str, Any]:
    context: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if user is not None:
        context |= {"runAsUser": user, "runAsGroup": user}
    return context


def _credential_source(workload: Workload, settings: Settings) -> dict[str, Any]:
    match settings.identity:
        case SecretIdentity():
            return {
                "secret": {
                    "secretName": secret_name(workload.name),
                    "items": _KEY_PAIR,
                    "defaultMode": _WORLD_READABLE,
                }
            }
        case PodCertificateIdentity() as identity:
            certificate = {
                "signerName": identity.signer_name,
                "keyType": "ECDSAP256",
                "maxExpirationSeconds": identity.max_expiration_seconds,
                "credentialBundlePath": "credential-bundle.pem",
            }
            return {
                "projected": {
                    "sources": [{"podCertificate": certificate}],
                    "defaultMode": _WORLD_READABLE,
                }
            }
        case CsiIdentity() as identity:
            attributes = {
                key: _filled(value, workload, settings.trust_domain)
                for key, value in identity.attributes.items()
            }
            source: dict[str, Any] = {"driver": identity.driver, "readOnly": True}
            return {"csi": source | ({"volumeAttributes": attributes} if attributes else {})}


def _filled(template: str, workload: Workload, trust_domain: str) -> str:
    for name, value in (
        ("{namespace}", workload.namespace),
        ("{server}", workload.name),
        ("{spiffeId}", workload.spiffe_id(trust_domain)),
    ):
        template = template.replace(name, value)
    return template
