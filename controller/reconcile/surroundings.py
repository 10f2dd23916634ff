"""What a pass over an MCPAuthServer looks at besides the object itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.api.objects import Object
from controller.reconcile.cert_manager import Given


@dataclass(frozen=True)
class ServingCertificate:
    """A Secret of the MCPAuthServer's namespace, and the Service whose names are in it."""

    secret_name: str
    service: str


@dataclass(frozen=True)
class Surroundings:
    """What the controller's own settings say, and what was counted elsewhere.

    `old_sidecars`: how many running pods have an image that may not be injected any more.
    `webhook`: what the webhook serves with, where its sidecars use this MCPAuthServer.
    """

    image: str
    cluster_domain: str
    accepted: int = 0
    pods_without_bundle: int = 0
    old_sidecars: Mapping[str, int] = field(default_factory=dict)
    webhook: ServingCertificate | None = None


@dataclass(frozen=True)
class Observed:
    """The objects of the MCPAuthServer's namespace, by name.

    `certificates` are cert-manager's, each without its Secret.
    """

    secrets: Mapping[str, Object] = field(default_factory=dict)
    config_maps: Mapping[str, Object] = field(default_factory=dict)
    deployment: Object | None = None
    volume_claim: Object | None = None
    jobs: Mapping[str, Object] = field(default_factory=dict)
    pods: tuple[Object, ...] = ()
    certificates: Mapping[str, Given] = field(default_factory=dict)
