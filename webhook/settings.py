"""The operator's configuration: what may be injected, and within which bounds.

Read from one YAML file and the CA file it names, checked whole, every fault reported with its
place. Listener certificates are not opened here, so that the offline command runs without them.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from chassis.config_types import Model, Port, Scope, TrustDomain, matches_pattern
from chassis.process import ConfigurationError
from chassis.yaml_config import problems_of, read_mapping
from webhook import neighbours
from webhook.quantity import Quantity
from webhook.value_types import Amount, Certificates, Host, Https, Image, Name, Resource

_QUALIFIED_NAME: Final = re.compile(r"[a-z0-9.-]{1,253}/[A-Za-z0-9._-]{1,63}", re.ASCII)
_UNIONS: Final = (("identity",),)  # where pydantic adds the chosen source to a fault's path
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,62}", re.ASCII)
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}){2,16}", re.ASCII)
DEFAULT_STREAM_MAX: Final = 3600  # seconds; the sidecar's own default

_PROXY: Final = re.compile(
    r"http://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?:[1-9][0-9]{0,4}", re.ASCII
)
ApiProxy = Annotated[str, matches_pattern(_PROXY, "a proxy such as http://proxy.example.com:3128")]

_DRIVER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?", re.ASCII)


class Bounds(Model):
    """What a pod gets unless it asks, and between which amounts it may ask."""

    default: Amount
    min: Amount
    max: Amount

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min.value <= self.default.value <= self.max.value:
            raise ValueError("must have min <= default <= max")
        return self


class OptionalBounds(Model):
    """Like Bounds, for an amount that only the profile or the pod adds."""

    default: Amount | None = None
    min: Amount
    max: Amount

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        default = self.min if self.default is None else self.default
        if not self.min.value <= default.value <= self.max.value:
            raise ValueError("must have min <= default <= max")
        return self


def _bounds(default: str, least: str, most: str) -> Bounds:
    return Bounds(
        default=Quantity.parse(default), min=Quantity.parse(least), max=Quantity.parse(most)
    )


# Of CPU and memory, by their names in annotations: ("cpu-request", "10m") and so on.
ResourceAmounts = tuple[tuple[str, str], ...]


def as_strings(amounts: Mapping[str, Quantity]) -> ResourceAmounts:
    return tuple((amount, quantity.text) for amount, quantity in amounts.items())


class Profile(Model):
    """A named way to inject; pods choose one of these and nothing beyond it."""

    cpu_request: Bounds = _bounds("10m", "1m", "500m")
    # No limit by default: it only slows down the start of the sidecar, and so of the pod.
    cpu_limit: OptionalBounds = OptionalBounds(min=Quantity.parse("50m"), max=Quantity.parse("2"))
    memory_request: Bounds = _bounds("48Mi", "16Mi", "256Mi")
    memory_limit: Bounds = _bounds("96Mi", "48Mi", "512Mi")
    # For namespaces with a quota on ephemeral storage, or a LimitRange with a minimum.
    ephemeral_storage_request: Amount | None = None
    ephemeral_storage_limit: Amount | None = None
    scopes: tuple[Scope, ...] = ()
    # Of no image we know; null where the cluster hands out user ids itself (OpenShift).
    run_as_user: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = 15500
    allow_shared_process_namespace: bool = False
    # The proxy through which the sidecar calls APIs; an author has no say in it.
    api_proxy: ApiProxy | None = None
    # How long a gateway lets one stream go on.
    gateway_stream_max_seconds: Annotated[int, Field(ge=60, le=86_400)] = DEFAULT_STREAM_MAX

    @cached_property
    def defaults(self) -> dict[str, Quantity]:
        """The amounts of a pod that asks for none, by their names in annotations."""
        amounts = {
            "cpu-request": self.cpu_request.default,
            "cpu-limit": self.cpu_limit.default,
            "memory-request": self.memory_request.default,
            "memory-limit": self.memory_limit.default,
        }
        named = {name: amount for name, amount in amounts.items() if amount is not None}
        return named | self.ephemeral_storage

    @cached_property
    def ephemeral_storage(self) -> dict[str, Quantity]:
        """The amounts of ephemeral storage; no annotation changes them."""
        amounts = {
            "ephemeral-storage-request": self.ephemeral_storage_request,
            "ephemeral-storage-limit": self.ephemeral_storage_limit,
        }
        return {name: amount for name, amount in amounts.items() if amount is not None}

    @cached_property
    def amounts(self) -> ResourceAmounts:
        """The same as as_strings."""
        return as_strings(self.defaults)

    @model_validator(mode="after")
    def _requests_fit(self) -> Self:
        for name, request, limit in (
            ("cpu", self.cpu_request.default, self.cpu_limit.default),
            ("memory", self.memory_request.default, self.memory_limit.default),
            ("ephemeral-storage", self.ephemeral_storage_request, self.ephemeral_storage_limit),
        ):
            if request is not None and limit is not None and request.value > limit.value:
                raise ValueError(f"the default {name} request is above the default limit")
        return self


class SecretIdentity(Model):
    """The credential lies in the Secret `<server>-tokenward` of the pod's namespace."""

    source: Literal["secret"] = "secret"


class PodCertificateIdentity(Model):
    """The kubelet has a signer certify a key it makes for this one pod."""

    source: Literal["podCertificate"]
    signer_name: Annotated[str, matches_pattern(_QUALIFIED_NAME, "domain/name of a signer")] = (
        "tokenward.dev/workload"
    )
    max_expiration_seconds: Annotated[int, Field(ge=3600, le=7862400)] = 86400


class CsiIdentity(Model):
    """A CSI driver hands out the credential.

    Attribute values may hold `{namespace}`, `{server}` and `{spiffeId}`.
    """

    source: Literal["csi"]
    driver: Annotated[str, matches_pattern(_DRIVER, "the name of a CSI driver")]
    attributes: dict[str, str] = Field(default_factory=dict)


Identity = Annotated[
    SecretIdentity | PodCertificateIdentity | CsiIdentity, Field(discriminator="source")
]


class Authserver(Model):
    """Where sidecars exchange tokens: the internal listener, and the CA its certificate is of."""

    url: Host
    ca_file: Certificates


class WebhookListener(Model):
    host: str = "::"
    port: Port = 10250
    cert_file: Path = Path("/var/run/tokenward/serving/tls.crt")
    key_file: Path = Path("/var/run/tokenward/serving/tls.key")
    # How long to go on serving after the signal, until every API server has moved on.
    linger_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0


class OpsListener(Model):
    host: str = "::"
    port: Port = 9090


class Listeners(Model):
    webhook: WebhookListener = WebhookListener()
    ops: OpsListener = OpsListener()


class Server(Model):
    """A server that the controller knows, and the resource URL that it answers for."""

    namespace: Name
    name: Name
    resource: Resource


class Neighbours(Model):
    """What other admission webhooks may add to the sidecar; the guard policy reads the same."""

    # Beginnings of variable names, such as AZURE_.
    environment: tuple[
        Annotated[str, matches_pattern(_VARIABLE, "the beginning of variable names in capitals")],
        ...,
    ] = ()
    mounts: tuple[Annotated[str, matches_pattern(_PATH, "an absolute path")], ...] = ()

    @model_validator(mode="after")
    def _harmless(self) -> Self:
        for prefix in self.environment:
            if neighbours.steers(prefix) or any(n.startswith(prefix) for n in neighbours.STEERING):
                raise ValueError(f"{prefix} would let others steer the sidecar")
        for path in self.mounts:
            if not neighbours.mount_fits(path):
                raise ValueError(
                    f"{path} is not a folder of its own in {', '.join(neighbours.MOUNT_ROOTS)}"
                )
        return self


class Settings(Model):
    """The whole file, checked."""

    image: Image
    trust_domain: TrustDomain
    issuer: Https
    authserver: Authserver
    identity: Identity = SecretIdentity()
    profiles: dict[Name, Profile] = Field(default_factory=lambda: {"default": Profile()})
    neighbours: Neighbours = Neighbours()
    # Rendered by the controller; null where there is none.
    servers: tuple[Server, ...] | None = None
    never_inject: frozenset[Name] = frozenset({"tokenward-system"})
    listeners: Listeners = Listeners()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    # What is remembered for one state of the file is never taken for another's, and is found
    # without reading all of it.
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    @model_validator(mode="after")
    def _has_a_default_profile(self) -> Self:
        if "default" not in self.profiles:
            raise ValueError("profiles must contain one named default")
        return self

    @cached_property
    def resources(self) -> dict[tuple[str, str], str]:
        """The resource URL of each known server, by namespace and name."""
        return {(one.namespace, one.name): one.resource for one in self.servers or ()}

    @cached_property
    def config_hashes(self) -> dict[str, str]:
        """For each profile, what identifies the configuration a pod was injected under."""
        parts = {"image", "trust_domain", "issuer", "identity"}
        at = self.authserver
        shared = f"{self.model_dump_json(include=parts)} {at.url} {at.ca_file.pem}"
        return {
            name: hashlib.sha256(f"{shared} {profile.model_dump_json()}".encode()).hexdigest()[:16]
            for name, profile in self.profiles.items()
        }


def load(file: Path) -> Settings:
    """Read and check the configuration in `file`. Raises ConfigurationError with every fault."""
    return check(read_mapping(file), file.resolve().parent)


def check(raw: dict[str, Any], folder: Path) -> Settings:
    """Check a configuration already read; paths in it are relative to `folder`."""
    try:
        return Settings.model_validate(raw, context={"folder": folder})
    except ValidationError as invalid:
        raise ConfigurationError(sorted(set(problems_of(invalid, unions=_UNIONS)))) from None
