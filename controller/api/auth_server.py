"""A typed view of MCPAuthServer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controller.api.objects import (
    Key,
    Object,
    annotations,
    dicts,
    generation,
    is_being_deleted,
    key_of,
    parse_time,
    path,
    uid,
)
from controller.api.v1alpha1 import (
    CONFIRM_SIDECAR,
    DEFAULT_RELEASE,
    PAUSED,
    RELEASE_RESOURCE,
    duration,
    mapping,
    strings,
)


@dataclass(frozen=True)
class Tenant:
    """Which servers may bind what. Empty members permit nothing."""

    match_names: tuple[str, ...]
    match_labels: Mapping[str, str]
    servers: tuple[str, ...]
    resources: tuple[str, ...]
    upstreams: tuple[str, ...]
    release: tuple[str, ...]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Tenant":
        namespaces = mapping(raw.get("namespaces"))
        return cls(
            strings(namespaces.get("matchNames")),
            {str(k): str(v) for k, v in mapping(namespaces.get("matchLabels")).items()},
            strings(raw.get("servers")) or ("*",),
            strings(raw.get("resources")),
            strings(raw.get("upstreams")),
            strings(raw.get("release")) or DEFAULT_RELEASE,
        )


@dataclass(frozen=True)
class Reservation:
    """A resource that was given up and waits for its namespace; `resource` is canonical."""

    resource: str
    namespace: str
    until: datetime


@dataclass(frozen=True)
class Adoption:
    """The owner `former` (its UID; empty in a hand-written map) of a resource is taken over.

    `uid` is the object that does so; empty in the operator's wish, which any object may answer.
    """

    resource: str
    namespace: str
    former: str
    uid: str = ""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Adoption":
        names = ("resource", "namespace", "former", "uid")
        return cls(*(str(raw.get(name, "")) for name in names))


@dataclass(frozen=True)
class CertificateSettings:
    """Of workloads or of servers: who issues, for how long, and when it is renewed."""

    source: str
    duration: timedelta
    renew_before: timedelta
    issuer: Mapping[str, Any]

    @classmethod
    def of(cls, raw: Mapping[str, Any], default: timedelta) -> "CertificateSettings":
        lifetime = duration(raw.get("duration"), default)
        return cls(
            str(raw.get("source", "BuiltIn")),
            lifetime,
            duration(raw.get("renewBefore"), lifetime / 3),
            mapping(raw.get("issuerRef")),
        )


@dataclass(frozen=True)
class AuthServer:
    """An MCPAuthServer."""

    raw: Object
    spec: Mapping[str, Any]
    tenants: tuple[Tenant, ...]

    @classmethod
    def of(cls, raw: Object) -> "AuthServer":
        spec = mapping(raw.get("spec"))
        return cls(raw, spec, tuple(Tenant.of(one) for one in dicts(spec.get("tenants"))))

    @property
    def key(self) -> Key:
        return key_of(self.raw)

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def namespace(self) -> str:
        return self.key.namespace

    @property
    def uid(self) -> str:
        return uid(self.raw)

    @property
    def generation(self) -> int:
        return generation(self.raw)

    @property
    def issuer(self) -> str:
        return str(self.spec.get("issuer", ""))

    @property
    def trust_domain(self) -> str:
        return str(self.spec.get("trustDomain", "cluster.local"))

    @property
    def replicas(self) -> int:
        return int(self.spec.get("replicas", 1))

    @property
    def upstreams(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(dicts(self.spec.get("upstreams")))

    @property
    def upstream_names(self) -> frozenset[str]:
        return frozenset(str(one.get("name")) for one in self.upstreams)

    @property
    def postgresql(self) -> Mapping[str, Any] | None:
        section = path(self.spec, "storage", "postgresql")
        return section if isinstance(section, Mapping) else None

    @property
    def sqlite(self) -> Mapping[str, Any]:
        return mapping(path(self.spec, "storage", "sqlite"))

    @property
    def workload_certificates(self) -> CertificateSettings:
        section = mapping(path(self.spec, "certificates", "workloads"))
        return CertificateSettings.of(section, timedelta(hours=24))

    @property
    def server_certificates(self) -> CertificateSettings:
        section = mapping(path(self.spec, "certificates", "server"))
        return CertificateSettings.of(section, timedelta(hours=2160))

    def authority(self, which: str) -> Mapping[str, Any]:
        """The settings of the authority `workloads` or `servers`."""
        return mapping(path(self.spec, "certificates", "authorities", which))

    @property
    def adoptions(self) -> tuple[Adoption, ...]:
        """What the operator agrees to."""
        return tuple(Adoption.of(one) for one in dicts(self.spec.get("adoptions")))

    @property
    def adopted(self) -> tuple[Adoption, ...]:
        """Which object each adoption went to: it is for one, once."""
        return tuple(Adoption.of(one) for one in dicts(self.status.get("adopted")))

    @property
    def status(self) -> Mapping[str, Any]:
        return mapping(self.raw.get("status"))

    @property
    def reserved(self) -> tuple[Reservation, ...]:
        """Entries that cannot be read are left out: the map itself still names the last owner."""
        return tuple(
            Reservation(str(one.get("resource")), str(one.get("namespace")), until)
            for one in dicts(self.status.get("reserved"))
            if (until := parse_time(one.get("until"))) is not None
        )

    @property
    def confirmed_sidecars(self) -> frozenset[str]:
        """Former images of the sidecar that the operator knows to be running."""
        return frozenset(annotations(self.raw).get(CONFIRM_SIDECAR, "").replace(",", " ").split())

    @property
    def released(self) -> frozenset[str]:
        """Resources whose reservation the operator ended, as written in the annotation."""
        return frozenset(annotations(self.raw).get(RELEASE_RESOURCE, "").replace(",", " ").split())

    @property
    def paused(self) -> bool:
        return annotations(self.raw).get(PAUSED) == "true"

    @property
    def live(self) -> bool:
        return not is_being_deleted(self.raw)
