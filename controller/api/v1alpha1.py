"""Typed views of MCPAuthServer and MCPServerAuth.

The API server has checked both against their schemas. A view is still careful: an object stored
under an older schema may lack a member, and missing data denies.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chassis.spiffe_id import Workload
from controller.api.objects import (
    Key,
    Object,
    annotations,
    created,
    dicts,
    generation,
    is_being_deleted,
    key_of,
    parse_time,
    path,
    uid,
)

GROUP: Final = "tokenward.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
SCHEMA: Final = (
    3  # of the annotation on both CustomResourceDefinitions; raised with each new member
)
SCHEMA_ANNOTATION: Final = f"{GROUP}/schema"

PAUSED: Final = f"{GROUP}/paused"
CONFIRM_SIDECAR: Final = f"{GROUP}/confirm-old-sidecar"
ADOPT: Final = f"{GROUP}/adopt"
RELEASE_RESOURCE: Final = f"{GROUP}/release-resource"

_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})(h|m|s)", re.ASCII)
_SECONDS: Final = {"h": 3600, "m": 60, "s": 1}
_DEFAULT_RELEASE: Final = ("HandOut", "Attach")


def duration(text: object, default: timedelta) -> timedelta:
    """A duration of the schema, such as 24h."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]]) if match else default


def _strings(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class UpstreamUse:
    """An upstream that a server wants, and when the user is sent there."""

    name: str
    when_needed: bool = False


@dataclass(frozen=True)
class OpenPorts:
    """TCP ports that a NetworkPolicy leaves open, and the labels of its pods; empty: default."""

    ports: tuple[int, ...]
    match_labels: Mapping[str, str]


@dataclass(frozen=True)
class ServerAuth:
    """An MCPServerAuth."""

    raw: Object
    auth_server: Key
    resource: str
    upstreams: tuple[UpstreamUse, ...]
    scopes: tuple[str, ...]
    release: tuple[str, ...]

    @classmethod
    def of(cls, raw: Object) -> "ServerAuth":
        spec = _mapping(raw.get("spec"))
        reference = _mapping(spec.get("authServerRef"))
        return cls(
            raw,
            Key(str(reference.get("namespace", "")), str(reference.get("name", ""))),
            str(spec.get("resource", "")),
            tuple(
                UpstreamUse(str(one.get("name", "")), one.get("connect") == "WhenNeeded")
                for one in dicts(spec.get("upstreams"))
            ),
            _strings(spec.get("scopes")),
            _strings(spec.get("release")) or _DEFAULT_RELEASE,
        )

    @property
    def key(self) -> Key:
        return key_of(self.raw)

    @property
    def network_policy(self) -> OpenPorts | None:
        """None where no NetworkPolicy is wanted."""
        section = path(self.raw, "spec", "networkPolicy")
        if not isinstance(section, Mapping):
            return None
        ports = section.get("ports")
        return OpenPorts(
            tuple(one for one in ports if isinstance(one, int)) if isinstance(ports, list) else (),
            {str(k): str(v) for k, v in _mapping(section.get("matchLabels")).items()},
        )

    @property
    def workload(self) -> Workload:
        return Workload(*self.key)

    @property
    def uid(self) -> str:
        return uid(self.raw)

    @property
    def created(self) -> datetime:
        return created(self.raw)

    @property
    def generation(self) -> int:
        return generation(self.raw)

    @property
    def status(self) -> Mapping[str, Any]:
        return _mapping(self.raw.get("status"))

    @property
    def adopts(self) -> str:
        """The resource whose earlier owner this object takes over, if the operator agrees."""
        return annotations(self.raw).get(ADOPT, "")

    @property
    def certificates(self) -> Mapping[str, datetime]:
        """The serials of leaves that were issued to this object, each with its end."""
        return {
            str(one.get("serial")): ends
            for one in dicts(self.status.get("certificates"))
            if (ends := parse_time(one.get("ends"))) is not None
        }

    @property
    def paused(self) -> bool:
        return annotations(self.raw).get(PAUSED) == "true"

    @property
    def live(self) -> bool:
        return not is_being_deleted(self.raw)


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
        namespaces = _mapping(raw.get("namespaces"))
        return cls(
            _strings(namespaces.get("matchNames")),
            {str(k): str(v) for k, v in _mapping(namespaces.get("matchLabels")).items()},
            _strings(raw.get("servers")) or ("*",),
            _strings(raw.get("resources")),
            _strings(raw.get("upstreams")),
            _strings(raw.get("release")) or _DEFAULT_RELEASE,
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
            _mapping(raw.get("issuerRef")),
        )


@dataclass(frozen=True)
class AuthServer:
    """An MCPAuthServer."""

    raw: Object
    spec: Mapping[str, Any]
    tenants: tuple[Tenant, ...]

    @classmethod
    def of(cls, raw: Object) -> "AuthServer":
        spec = _mapping(raw.get("spec"))
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
        return _mapping(path(self.spec, "storage", "sqlite"))

    @property
    def workload_certificates(self) -> CertificateSettings:
        section = _mapping(path(self.spec, "certificates", "workloads"))
        return CertificateSettings.of(section, timedelta(hours=24))

    @property
    def server_certificates(self) -> CertificateSettings:
        section = _mapping(path(self.spec, "certificates", "server"))
        return CertificateSettings.of(section, timedelta(hours=2160))

    def authority(self, which: str) -> Mapping[str, Any]:
        """The settings of the authority `workloads` or `servers`."""
        return _mapping(path(self.spec, "certificates", "authorities", which))

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
        return _mapping(self.raw.get("status"))

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
