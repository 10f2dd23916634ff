"""A typed view of MCPServerAuth."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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
from controller.api.v1alpha1 import ADOPT, DEFAULT_RELEASE, PAUSED, mapping, strings


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
        spec = mapping(raw.get("spec"))
        reference = mapping(spec.get("authServerRef"))
        return cls(
            raw,
            Key(str(reference.get("namespace", "")), str(reference.get("name", ""))),
            str(spec.get("resource", "")),
            tuple(
                UpstreamUse(str(one.get("name", "")), one.get("connect") == "WhenNeeded")
                for one in dicts(spec.get("upstreams"))
            ),
            strings(spec.get("scopes")),
            strings(spec.get("release")) or DEFAULT_RELEASE,
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
            {str(k): str(v) for k, v in mapping(section.get("matchLabels")).items()},
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
        return mapping(self.raw.get("status"))

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
