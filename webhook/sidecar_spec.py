"""Pure: what being injected means: the container, its volumes, and what the others get.

The container satisfies Pod Security `restricted` by itself; pod-level fields are never touched.
"""

from collections.abc import Mapping, Sequence
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
from webhook.settings import DEFAULT_STREAM_MAX, Profile, ResourceAmounts, Settings
from webhook.sidecar_volumes import (
    CA_FILE,
    CA_VOLUME,
    CREDENTIAL_VOLUME,
    NO_API_TOKEN_VOLUME,
    SHARED_VOLUMES,
    credential_volume,
)

CONTAINER: Final = "tokenward-sidecar"
COMMAND: Final = ("python", "-m", "sidecar")
# Returns when the sidecar is ready, and fails where it does not get so.
WAIT_UNTIL_READY: Final = ("python", "-S", "-m", "sidecar.wait_until_ready")
URL_VARIABLE: Final = "TOKENWARD_URL"

OPS_PORT_NAME: Final = "tokenward-ops"
GATEWAY_PORT_NAME: Final = "tokenward-gw"

MOUNTS: Final = "/var/run/tokenward"
_CREDENTIAL_DIR: Final = f"{MOUNTS}/credential"
_CA_DIR: Final = f"{MOUNTS}/authserver-ca"
_API_TOKEN_DIR: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a folder

_LABELS: Final = {INJECTED_LABEL: "true"}

# A variable as Kubernetes writes it.
_Variable = dict[str, str]


class SidecarContainer(msgspec.Struct, frozen=True, eq=False):
    """The sidecar's container but for the variables that are a workload's own.

    `before` and `after` are the variables around those. `members` has an empty list at their place.
    In the form that `as_json` gives, members and variables are JSON already.
    """

    members: Mapping[str, Any]
    before: Sequence[Any]
    after: Sequence[Any]

    def with_variables(self, own: Sequence[_Variable]) -> dict[str, Any]:
        return {**self.members, "env": [*self.before, *own, *self.after]}

    def as_json(self) -> "SidecarContainer":
        return SidecarContainer(
            {name: _json(value) for name, value in self.members.items()},
            [_json(variable) for variable in self.before],
            [_json(variable) for variable in self.after],
        )


def _json(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


class Sidecar(msgspec.Struct, frozen=True, eq=False):
    """Everything an injected pod has that it did not have before.

    One object for all pods alike in it: never changed, and compared by being the same one.
    """

    server: str
    config_hash: str
    own_variables: Sequence[_Variable]
    shared_container: SidecarContainer
    shared_container_json: SidecarContainer
    credential: dict[str, Any]
    url: str
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    port: int
    ops_port: int
    gateway: GatewayOptions | None = None

    @property
    def container(self) -> dict[str, Any]:
        return self.shared_container.with_variables(self.own_variables)

    @property
    def container_for_json(self) -> dict[str, Any]:
        """The same for a JSON encoder, which finds most of it encoded. It cannot be read."""
        return self.shared_container_json.with_variables(self.own_variables)

    @property
    def volumes(self) -> tuple[dict[str, Any], ...]:
        return (self.credential, *SHARED_VOLUMES)

    @property
    def port_keys(self) -> dict[int, str]:
        """The sidecar's ports, each with the annotation that moves it."""
        keys = {self.port: PORT, self.ops_port: OPS_PORT}
        return keys if self.gateway is None else keys | {self.gateway.port: GATEWAY}


# The pods of a workload, and many workloads' pods at once, are alike in all that this takes, and
# nothing else of a pod comes in. Each of them is short, so what is remembered stays small.
@lru_cache(maxsize=256)
def build(
    namespace: str,
    server: str,
    resource: str | None,
    sidecar_options: SidecarOptions,
    amounts: ResourceAmounts,
    settings: Settings,
) -> Sidecar:
    workload = Workload(namespace, server)
    shared, shared_json = _shared(sidecar_options, amounts, settings)
    own = {
        "TOKENWARD_SPIFFE_ID": workload.spiffe_id(settings.trust_domain),
        "TOKENWARD_RESOURCE": resource,
    }
    return Sidecar(
        server=server,
        config_hash=settings.config_hashes[sidecar_options.profile],
        own_variables=_variables(own),
        shared_container=shared,
        shared_container_json=shared_json,
        credential=credential_volume(workload, settings),
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


# Many workloads have the same options. What is made here has nothing of any workload in it.
@lru_cache(maxsize=64)
def _shared(
    sidecar_options: SidecarOptions, amounts: ResourceAmounts, settings: Settings
) -> tuple[SidecarContainer, SidecarContainer]:
    """What their containers have alike, and the same as JSON."""
    profile, gateway = settings.profiles[sidecar_options.profile], sidecar_options.gateway
    members = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(COMMAND),
        "restartPolicy": "Always",
        # The token port is on loopback and needs no entry here.
        "ports": _ports(sidecar_options.ops_port, None if gateway is None else gateway.port),
        # The kubelet goes on when the hook returns; a start-up probe, asked once a second, would
        # cost each pod half a second more. Neither hook nor probe reaches beyond the pod: one that
        # waited for the network would stop pods whose network is set up by a container further
        # down the list.
        "lifecycle": {"postStart": {"exec": {"command": list(WAIT_UNTIL_READY)}}},
        "livenessProbe": _probe("/healthz", sidecar_options.ops_port, period=10, failures=3),
        "securityContext": _security_context(profile.run_as_user),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": CREDENTIAL_VOLUME, "mountPath": _CREDENTIAL_DIR, "readOnly": True},
            {"name": CA_VOLUME, "mountPath": _CA_DIR, "readOnly": True},
            # An existing mount keeps ServiceAccount admission from adding the API token.
            {"name": NO_API_TOKEN_VOLUME, "mountPath": _API_TOKEN_DIR, "readOnly": True},
        ],
        "env": [],
    }
    if amounts:
        members["resources"] = _resources(amounts)
    container = SidecarContainer(
        members,
        _variables(_before(sidecar_options, settings)),
        _variables(_after(gateway, profile)),
    )
    return container, container.as_json()


def _ports(ops_port: int, gateway_port: int | None) -> list[dict[str, Any]]:
    ports = {OPS_PORT_NAME: ops_port}
    if gateway_port is not None:
        ports[GATEWAY_PORT_NAME] = gateway_port
    return [
        {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()
    ]


def _before(sidecar_options: SidecarOptions, settings: Settings) -> dict[str, str]:
    return {
        "TOKENWARD_AUTHSERVER_URL": settings.authserver.url,
        "TOKENWARD_AUTHSERVER_CA_FILE": f"{_CA_DIR}/{CA_FILE}",
        "TOKENWARD_CREDENTIAL_DIR": _CREDENTIAL_DIR,
        "TOKENWARD_ISSUER": settings.issuer,
        "TOKENWARD_SCOPES": " ".join(settings.profiles[sidecar_options.profile].scopes),
        "TOKENWARD_PORT": str(sidecar_options.port),
        "TOKENWARD_OPS_PORT": str(sidecar_options.ops_port),
        "TOKENWARD_LOG_LEVEL": sidecar_options.log_level,
    }


def _after(gateway: GatewayOptions | None, profile: Profile) -> dict[str, str]:
    variables = {"TOKENWARD_API_PROXY": profile.api_proxy or ""}
    if gateway is not None:
        variables |= dict(gateway.variables)
        variables["TOKENWARD_GATEWAY_STREAM_MAX"] = _changed(profile.gateway_stream_max_seconds)
    return variables


def _variables(named: Mapping[str, str | None]) -> list[_Variable]:
    """Those that have a value."""
    return [{"name": name, "value": value} for name, value in named.items() if value]


def _changed(stream_max: int) -> str:
    """The variable's value; none where it is the sidecar's own default."""
    return "" if stream_max == DEFAULT_STREAM_MAX else str(stream_max)


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
