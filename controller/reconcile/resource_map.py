"""The map from resource to owner, in sixteen files that the authserver follows.

An entry's shard is the hash of its namespace and name, so one change rewrites one shard. The shards
are also the durable record of who owned a resource last: what leaves them is reserved.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from chassis.resource_url import InvalidResource, collision_key
from controller.api.auth_server import Adoption, AuthServer, Reservation
from controller.api.objects import Key, Object, dicts, format_time, parse_time, path
from controller.api.server_auth import ServerAuth
from controller.reconcile.acceptance import Hold

SHARDS: Final = 16
MAX_SHARD_BYTES: Final = 900_000  # a ConfigMap holds 1 MiB with all its metadata
MAX_RESERVATIONS: Final = 2000

# As long as the authserver keeps sessions of an owner that no map names any more.
GRACE: Final = timedelta(days=7)

# A certificate that began earlier than this before the object is not the object's.
CLOCK_MARGIN: Final = timedelta(minutes=5)


def file_name(shard: int) -> str:
    """The shard's file in the authserver's `resourcesDir`."""
    return f"resources-{shard:02d}.yaml"


def shard_of(server: Key) -> int:
    """The number of the shard for a server, for ever the same."""
    return hashlib.sha256(str(server).encode()).digest()[0] % SHARDS


def config_map_name(auth_server: str, shard: int) -> str:
    return f"{auth_server}-resources-{shard:02d}"


def adoptions(auth_server: AuthServer, accepted: Iterable[ServerAuth]) -> list[Adoption]:
    """Which object each adoption that the operator confirms goes to.

    The first object that asks gets it, and no other one ever: not its namesake after it was
    deleted. The list has to be in the status before the map says so.
    """
    wanted = {replace(one, uid=""): one for one in auth_server.adoptions}
    made = {known: one for one in auth_server.adopted if (known := replace(one, uid="")) in wanted}
    free = {(one.resource, one.namespace): one for one in wanted if one not in made}
    for server in accepted if free else ():
        one = free.get((server.resource, server.key.namespace))
        if one is not None and server.adopts == server.resource:
            made[one] = replace(one, uid=server.uid)
    return sorted(made.values(), key=lambda one: (one.namespace, one.resource, one.former))


def entry(server: ServerAuth, adopted: Iterable[Adoption] = ()) -> dict[str, Any]:
    """One entry, with the members of the configuration file's `resources`."""
    workload: dict[str, Any] = {"namespace": server.key.namespace, "name": server.key.name}
    workload["uid"] = server.uid
    former = [one.former for one in adopted if one.uid == server.uid]
    if former:
        workload["adopts"] = former[0]
    else:
        workload["notBefore"] = format_time(server.created - CLOCK_MARGIN)
    upstreams: list[Any] = [
        {"name": one.name, "connect": "WhenNeeded"} if one.when_needed else one.name
        for one in server.upstreams
    ]
    made: dict[str, Any] = {
        "resource": server.resource,
        "workload": workload,
        "upstreams": upstreams,
    }
    if server.scopes:
        made["scopes"] = list(server.scopes)
    if set(server.release) != {"HandOut", "Attach"}:
        made["release"] = list(server.release)
    return made


@dataclass(frozen=True)
class Map:
    """The shards as texts, their hashes, whose entries did not fit, and who adopts what."""

    shards: tuple[str, ...]
    left_out: frozenset[Key]
    adopted: tuple[Adoption, ...] = ()

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        return tuple(shard_hash(one) for one in self.shards)


def shard_hash(text: str) -> str:
    """What the authserver shows of a shard that it has in force: SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


Leaves = Mapping[str, datetime]
"""Serials of certificates, each with its end."""


def build(
    accepted: Iterable[ServerAuth],
    adopted: Iterable[Adoption] = (),
    denied: Mapping[int, Leaves] | None = None,
) -> Map:
    """The map of these servers; the order in which they come changes nothing.

    `denied` are leaves of deleted objects, by the shard that the object's entry was in.
    """
    adopted, denied = tuple(adopted), denied or {}
    lines: list[list[str]] = [[] for _ in range(SHARDS)]
    sizes = [len(json.dumps(_denied(denied.get(shard, {})))) for shard in range(SHARDS)]
    left_out = set()
    for server in sorted(accepted, key=lambda one: (one.created, one.uid)):
        shard, line = shard_of(server.key), _line(server, adopted)
        if sizes[shard] + len(line) + 3 > MAX_SHARD_BYTES:
            left_out.add(server.key)
            continue
        sizes[shard] += len(line) + 3
        lines[shard].append(line)
    shards = (_render(one, denied.get(shard, {})) for shard, one in enumerate(lines))
    return Map(tuple(shards), frozenset(left_out), adopted)


def holds(built: Map, server: ServerAuth) -> bool:
    """Whether the map has the entry of this server as it is now."""
    return _line(server, built.adopted) in built.shards[shard_of(server.key)]


def _line(server: ServerAuth, adopted: Iterable[Adoption]) -> str:
    return json.dumps(entry(server, adopted), sort_keys=True)


def _render(lines: list[str], denied: Leaves) -> str:
    """JSON, which is YAML too, with a line for each entry, so that a person can read a change."""
    entries = "[\n" + ",\n".join(sorted(lines)) + "\n]" if lines else "[]"
    if not denied:
        return f'{{"resources": {entries}}}\n'
    return f'{{"deniedCertificates": {json.dumps(_denied(denied))},\n"resources": {entries}}}\n'


def _denied(leaves: Leaves) -> list[dict[str, str]]:
    return [
        {"serial": serial, "until": format_time(ends)} for serial, ends in sorted(leaves.items())
    ]


def denied(config_map: Object) -> Leaves:
    """The leaves that a shard denies, as it is in the cluster."""
    return {
        str(one.get("serial")): ends
        for one in _members(config_map, "deniedCertificates")
        if (ends := parse_time(one.get("until"))) is not None
    }


def entries(config_map: Object) -> list[Mapping[str, Any]]:
    """The entries of a shard's ConfigMap as it is in the cluster; empty where it is unreadable."""
    return _members(config_map, "resources")


def _members(config_map: Object, name: str) -> list[Mapping[str, Any]]:
    data = config_map.get("data")
    result: list[Mapping[str, Any]] = []
    for text in data.values() if isinstance(data, Mapping) else ():
        try:
            result += dicts(path(json.loads(text), name))
        except (ValueError, RecursionError):
            continue  # edited by hand; it is put back, and what it reserved is in the status
    return result


def owners(config_maps: Iterable[Object]) -> dict[str, Mapping[str, Any]]:
    """The owner of each resource in the map as it is in the cluster, by the collision key."""
    result: dict[str, Mapping[str, Any]] = {}
    for one in config_maps:
        for each in entries(one):
            workload = each.get("workload")
            try:
                resource = collision_key(str(each.get("resource")))
            except InvalidResource:
                continue
            if isinstance(workload, Mapping):
                result[resource] = workload
    return result


Claims = Mapping[Key, str]
"""The UIDs of the servers that claim one resource and are refused for a conflict at most."""


def reservations(
    auth_server: AuthServer,
    before: Mapping[str, Mapping[str, Any]],
    claims: Mapping[str, Claims],
    now: datetime,
) -> list[Reservation]:
    """The resources to keep for the namespace that had them last.

    `before` are the owners in the map as it is in the cluster. The list has to be in the status
    before the map is written without these owners.
    """
    released = _released(auth_server)
    kept = {
        one.resource: one
        for one in auth_server.reserved
        if one.resource not in released and _in_force(one, claims.get(one.resource, {}), now)
    }
    for resource, workload in before.items():
        if resource not in released and not _is_live(workload, claims.get(resource, {})):
            namespace = str(workload.get("namespace"))
            kept[resource] = Reservation(resource, namespace, now + GRACE)
    return sorted(kept.values(), key=lambda one: (one.until, one.resource))[-MAX_RESERVATIONS:]


def hold(
    resource: str,
    auth_server: AuthServer,
    before: Mapping[str, Mapping[str, Any]],
    claims: Claims,
    now: datetime,
) -> Hold | None:
    """The one namespace that may have the resource, or None where creation time decides.

    The map itself counts too: a reservation may not have been written yet.
    """
    if resource in _released(auth_server):
        return None
    workload = before.get(resource)
    if workload is not None and not _is_live(workload, claims):
        return Hold(str(workload.get("namespace")))
    reserved = (one for one in auth_server.reserved if one.resource == resource)
    return next((Hold(one.namespace) for one in reserved if _in_force(one, claims, now)), None)


def _in_force(reservation: Reservation, claims: Claims, now: datetime) -> bool:
    """A reservation that its namespace makes use of does not end: a squatter may be older."""
    claimed = any(one.namespace == reservation.namespace for one in claims)
    return claimed or reservation.until > now


def _is_live(workload: Mapping[str, Any], claims: Claims) -> bool:
    """Whether the owner of an entry is still there, and no namesake of a deleted one."""
    uid = claims.get(Key(str(workload.get("namespace")), str(workload.get("name"))))
    return uid is not None and workload.get("uid") in (None, uid)


def _released(auth_server: AuthServer) -> frozenset[str]:
    result = set()
    for text in auth_server.released:
        try:
            result.add(collision_key(text))
        except InvalidResource:
            continue
    return frozenset(result)
