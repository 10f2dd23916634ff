"""Parses the annotations of a pod into InjectionOptions, and collects every fault in them.

Every value is matched whole.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import msgspec

from chassis.logs import LEVELS
from chassis.spiffe_id import is_dns_label
from webhook.annotation_reader import BadValue, Reader, choice, suggestion
from webhook.annotations import (
    AMOUNTS,
    CONTAINERS,
    DEFAULT_OPS_PORT,
    DEFAULT_PORT,
    GATEWAY_KEYS,
    INIT_ORDER,
    INJECT,
    INJECTED_LABEL,
    KNOWN,
    LOG_LEVEL,
    OPS_PORT,
    PORT,
    PREFIX,
    PROFILE,
    PUBLIC,
    RESOURCE,
    SERVER,
    SKIP_CONTAINERS,
)
from webhook.gateway_options import GatewayOptions, check_ports, read_gateway
from webhook.quantity import InvalidQuantity, Quantity
from webhook.reasons import EXPLAINED, Reason, Violation, quoted
from webhook.settings import Bounds, OptionalBounds, Profile, Settings
from webhook.value_types import is_resource

# Bounds of one cache entry, because anyone may post a pod. In characters: a list of containers
# takes some twenty times its length in memory. In keys: the refusal of an unknown key is much
# longer than the key. A pod with only known keys has at most this many.
_MAX_REMEMBERED: Final = 1024
_MAX_REMEMBERED_KEYS: Final = len(KNOWN) + len((INJECTED_LABEL,))

# The sidecar has no NET_BIND_SERVICE, so it cannot bind ports below 1024.
_PORT: Final = re.compile(r"[1-9][0-9]{3,4}", re.ASCII)
_CONTAINER_NAMES: Final = re.compile(r"[a-z0-9-]{1,63}(?: ?, ?[a-z0-9-]{1,63})*", re.ASCII)


class SidecarOptions(msgspec.Struct, frozen=True):
    """The options of the sidecar container that many workloads have alike."""

    profile: str
    port: int
    ops_port: int
    log_level: str
    gateway: GatewayOptions | None = None


class InjectionOptions(msgspec.Struct, frozen=True):  # made for every pod: cheaper than a dataclass
    """The options of one pod, with the contract's defaults.

    `requested` holds only the compute resources that the pod names itself. `containers` is None for
    all containers.
    """

    server: str | None = None
    resource: str | None = None
    profile: str = "default"
    containers: frozenset[str] | None = None
    skip_containers: frozenset[str] = frozenset()
    port: int = DEFAULT_PORT
    ops_port: int = DEFAULT_OPS_PORT
    requested: Mapping[str, Quantity] = msgspec.field(default_factory=dict)
    log_level: str = "info"
    first: bool = True
    gateway: GatewayOptions | None = None

    @property
    def sidecar_options(self) -> SidecarOptions:
        return SidecarOptions(self.profile, self.port, self.ops_port, self.log_level, self.gateway)

    def applies_to(self, container: str) -> bool:
        """Whether this container gets `TOKENWARD_URL`."""
        chosen = self.containers is None or container in self.containers
        return chosen and container not in self.skip_containers


_OPTED: Final = {"true": True, "false": False}


def opted(annotations: Mapping[str, str]) -> bool | None:
    """Whether the pod opts in (True) or out (False). None: neither of the two values."""
    return _OPTED.get(annotations.get(INJECT, ""))


def read(
    annotations: Mapping[str, str], labels: Mapping[str, str], settings: Settings
) -> tuple[InjectionOptions, tuple[Violation, ...]]:
    """The options of the pod, and every fault in its annotations and labels."""
    ours = tuple([item for item in annotations.items() if item[0].startswith(PREFIX)])
    labelled = tuple([key for key in labels if key.startswith(PREFIX)])
    few = len(ours) + len(labelled) <= _MAX_REMEMBERED_KEYS
    short = few and sum(map(len, chain(labelled, *ours))) <= _MAX_REMEMBERED
    return (_remembered if short else _read)(ours, labelled, settings)


# Pods of one workload carry the same annotations.
@lru_cache(maxsize=256)
def _remembered(
    ours: tuple[tuple[str, str], ...], labelled: tuple[str, ...], settings: Settings
) -> tuple[InjectionOptions, tuple[Violation, ...]]:
    """The same as `_read`, made of what other workloads' pods may have alike and the rest."""
    shared = tuple([item for item in ours if item[0] not in _OF_A_WORKLOAD])
    options, refusals = _shared(shared, labelled, settings)
    if len(shared) == len(ours):
        return options, refusals
    annotations = dict(ours)
    try:
        own = {
            field: parse(annotations[key])
            for key, (field, parse) in _OF_A_WORKLOAD.items()
            if key in annotations
        }
    except BadValue:
        return _read(ours, labelled, settings)  # it says so among the other faults, in their order
    return msgspec.structs.replace(options, **own), refusals


def _read(
    ours: tuple[tuple[str, str], ...], labelled: tuple[str, ...], settings: Settings
) -> tuple[InjectionOptions, tuple[Violation, ...]]:
    annotations, profiles = dict(ours), settings.profiles
    reader = Reader(annotations, _unknown(annotations, labelled))
    reader.read(INJECT, _BOOLEAN)
    profile = "default"
    if PROFILE in annotations:
        profile = reader.read(PROFILE, choice(sorted(profiles))) or profile
    fields: dict[str, Any] = {"profile": profile}
    for key, (field, parse) in _PARSERS.items():
        if key in annotations and (value := reader.read(key, parse)) is not None:
            fields[field] = value
    if not AMOUNTS.keys().isdisjoint(annotations):
        fields["requested"] = _requested(reader, profiles[profile])
    if not annotations.keys().isdisjoint(GATEWAY_KEYS):
        fields["gateway"] = read_gateway(reader)
    options = InjectionOptions(**fields)
    if options.port == options.ops_port:
        reader.refuse(f"{PORT} and {OPS_PORT} must differ, both are {options.port}")
    if options.gateway is not None:
        check_ports(reader, options.gateway, {PORT: options.port, OPS_PORT: options.ops_port})
    if options.containers and (both := options.containers & options.skip_containers):
        listed = quoted(", ".join(sorted(both)))
        reader.refuse(f"{CONTAINERS} and {SKIP_CONTAINERS} both name {listed}")
    return options, tuple(reader.refusals)


# Pods of many workloads carry the same annotations but for those that say which workload it is.
_shared = lru_cache(maxsize=256)(_read)


def _unknown(annotations: Iterable[str], labels: Iterable[str]) -> list[Violation]:
    """A violation for each key of ours that means nothing."""
    unknown = [key for key in annotations if key not in KNOWN]
    texts = [
        f"annotation {quoted(key)} is unknown; {suggestion(key, PUBLIC)}"
        for key in unknown[:EXPLAINED]
    ] + [f"annotation {quoted(key)} is unknown" for key in unknown[EXPLAINED:]]
    return [Violation(Reason.UNKNOWN_KEY, text) for text in texts] + [
        Violation(
            Reason.UNKNOWN_KEY,
            f"label {quoted(key)} is unknown; settings are annotations of the pod",
        )
        for key in labels
        if key != INJECTED_LABEL
    ]


_BOOLEAN: Final = choice(("true", "false"))
_LEVEL: Final = choice(LEVELS)
_ORDER: Final = choice(("first", "last"))


def _server(text: str) -> str:
    if not is_dns_label(text):
        raise BadValue(
            "allowed: a name of the pod's own namespace: lower-case letters, digits and hyphens, "
            "at most 63"
        )
    return text


def _resource(text: str) -> str:
    if not is_resource(text):
        raise BadValue(
            "allowed: an absolute http or https URL without fragment and user information"
        )
    return text


def _names(text: str) -> frozenset[str]:
    if _CONTAINER_NAMES.fullmatch(text) is None:
        raise BadValue("allowed: container names separated by commas")
    return frozenset(name.strip() for name in text.split(","))


def _port(text: str) -> int:
    if _PORT.fullmatch(text) is None or not 1024 <= int(text) <= 65535:
        raise BadValue("allowed: a port from 1024 to 65535")
    return int(text)


def _first(text: str) -> bool:
    return _ORDER(text) == "first"


# Keys whose parser needs no configuration, and the field of InjectionOptions that each sets.
# Those of the first mapping differ from workload to workload; no other field depends on them.
_OF_A_WORKLOAD: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    SERVER: ("server", _server),
    RESOURCE: ("resource", _resource),
}
_PARSERS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    **_OF_A_WORKLOAD,
    CONTAINERS: ("containers", _names),
    SKIP_CONTAINERS: ("skip_containers", _names),
    PORT: ("port", _port),
    OPS_PORT: ("ops_port", _port),
    LOG_LEVEL: ("log_level", _LEVEL),
    INIT_ORDER: ("first", _first),
}


def _requested(reader: Reader, profile: Profile) -> dict[str, Quantity]:
    amounts = {}
    for key, amount in AMOUNTS.items():
        if key in reader.annotations:
            bounds: Bounds | OptionalBounds = getattr(profile, amount.replace("-", "_"))
            quantity = reader.read(key, _within(bounds))
            if quantity is not None:
                amounts[amount] = quantity
    return amounts


def _within(bounds: Bounds | OptionalBounds) -> Callable[[str], Quantity]:
    def parse(text: str) -> Quantity:
        allowed = f"allowed: {bounds.min} to {bounds.max}"
        try:
            quantity = Quantity.parse(text)
        except InvalidQuantity:
            raise BadValue(f"{allowed}, written like {bounds.default or bounds.min}") from None
        if not bounds.min.value <= quantity.value <= bounds.max.value:
            raise BadValue(allowed)
        return quantity

    return parse
