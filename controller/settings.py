"""The operator's settings of the controller: frozen, typed, every fault reported at once."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from chassis.config_types import Model, Port
from chassis.process import ConfigurationError
from chassis.spiffe_id import is_dns_label
from chassis.yaml_config import problems_of, read_mapping


def _label(text: str) -> str:
    if not is_dns_label(text):
        raise ValueError("must be a DNS-1123 label")
    return text


Name = Annotated[str, AfterValidator(_label)]
Image = Annotated[str, Field(min_length=1, max_length=512)]


class OpsListener(Model):
    host: str = "::"
    port: Port = 9090


class Listeners(Model):
    ops: OpsListener = OpsListener()


class LeaderElection(Model):
    """Two replicas of the controller agree on one by this Lease of their namespace."""

    lease: Name = "tokenward-controller"


class WebhookSettings(Model):
    """The webhook that this controller configures.

    `authServer` is the MCPAuthServer whose issuer and internal listener its sidecars use.
    `configuration` are members of the webhook's file, word for word: image, identity, profiles,
    neighbours, neverInject, logLevel.
    """

    auth_server: Name
    configuration: dict[str, Any] = Field(default_factory=dict)
    guard_policy: Name = "tokenward-guard-configuration"
    config_map: Name = "tokenward-webhook"
    serving_secret: Name = "tokenward-webhook-serving"  # noqa: S105 - a name
    service: Name = "tokenward-webhook"
    mutating_webhook_configuration: Name = "tokenward"

    @property
    def image(self) -> str:
        """The sidecar's image; empty where the configuration names none."""
        return str(self.configuration.get("image", ""))


class Settings(Model):
    """The whole file, checked."""

    namespace: Name = "tokenward-system"
    cluster_domain: Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,253}$")] = "cluster.local"
    authserver_image: Image
    webhook: WebhookSettings | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    resync_minutes: Annotated[int, Field(ge=1, le=1440)] = 10
    leader_election: LeaderElection = LeaderElection()
    listeners: Listeners = Listeners()
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def load(file: Path) -> Settings:
    """Read and check the configuration in `file`. Raises ConfigurationError with every fault."""
    try:
        return Settings.model_validate(read_mapping(file))
    except ValidationError as invalid:
        raise ConfigurationError(sorted(set(problems_of(invalid)))) from None
