"""Everything observed, in the shape that verdicts need: who claims what, and who had it last.

It is fed with changes in any order, and what it answers depends only on the objects that are there.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from controller.api.auth_server import AuthServer, Reservation
from controller.api.conditions import Condition
from controller.api.objects import Key, Object, labels, same_wish
from controller.api.server_auth import ServerAuth
from controller.reconcile import acceptance, resource_map
from controller.reconcile.resource_map import Claims, Leaves

Claim = tuple[Key, str]
"""An MCPAuthServer and a resource, by its collision key."""

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Index:
    """The objects of both kinds, the labels of namespaces, and the map as it is in the cluster.

    `namespace` is where MCPAuthServers count.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.auth_servers: dict[Key, AuthServer] = {}
        self.servers: dict[Key, ServerAuth] = {}
        self.labels: dict[str, Mapping[str, str]] = {}
        self._claims: dict[Claim, set[Key]] = defaultdict(set)
        self._claim_of: dict[Key, Claim] = {}
        self._by_auth_server: dict[Key, set[Key]] = defaultdict(set)
        self._by_namespace: dict[str, set[Key]] = defaultdict(set)
        self._problems: dict[
            Key,
            tuple[ServerAuth, AuthServer | None, Mapping[str, str] | None, Condition | None],
        ] = {}
        self._shards: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._denied: dict[str, Leaves] = {}
        self._just_denied: dict[str, Leaves] = {}
        self._accepted: dict[Key, _Accepted] = {}

    def put_auth_server(self, key: Key, raw: Object | None) -> None:
        before = self.auth_servers.pop(key, None)
        now = AuthServer.of(raw) if raw is not None else None
        if now is not None:
            self.auth_servers[key] = now
            if before is not None and _is_only_status(before, now):
                for server in self._by_auth_server.get(key, ()):
                    self._keep_problem(server, before, now)
                return
        self._accepted.pop(key, None)

    def put_namespace(self, name: str, raw: Object | None) -> None:
        if raw is None:
            self.labels.pop(name, None)
        elif self.labels.get(name) == labels(raw):
            return
        else:
            self.labels[name] = labels(raw)
        self._accepted.clear()

    def put_shard(self, name: str, config_map: Object | None) -> None:
        """A ConfigMap of a resource map, by its name; others may come too and hold no entry."""
        if config_map is None:
            self._shards.pop(name, None)
            self._accepted.clear()
        else:
            owners = resource_map.owners([config_map])
            if owners != self._shards.get(name):
                self._accepted.clear()
            self._shards[name] = owners
            self._denied[name] = resource_map.denied(config_map)
            just = self._just_denied.get(name, {}).items() - self._denied[name].items()
            self._just_denied[name] = dict(just)

    def deny(self, server: ServerAuth, leaves: Leaves) -> None:
        """Leaves of an object that is gone; they are denied until they end."""
        name = resource_map.config_map_name(
            server.auth_server.name, resource_map.shard_of(server.key)
        )
        self._just_denied[name] = {**self._just_denied.get(name, {}), **leaves}

    def denied(self, auth_server: str, now: datetime) -> Mapping[int, Leaves]:
        """What is denied now, by shard: what the map has, and what it does not have yet."""
        denied = {}
        for shard in range(resource_map.SHARDS):
            name = resource_map.config_map_name(auth_server, shard)
            leaves = {**self._denied.get(name, {}), **self._just_denied.get(name, {})}
            denied[shard] = {serial: ends for serial, ends in leaves.items() if ends > now}
        return denied

    def put_server(self, key: Key, raw: Object | None) -> set[Claim]:
        """Take a server over; the claims whose outcome may have changed."""
        former = self.servers.get(key)
        if former is not None and same_wish(former.raw, raw):
            self._put_status(key, former, ServerAuth.of(raw or {}))
            return set()
        touched = set()
        if (before := self._claim_of.pop(key, None)) is not None:
            touched.add(before)
            self._claims[before].discard(key)
            self._by_auth_server[before[0]].discard(key)
            self._by_namespace[key.namespace].discard(key)
            if not self._claims[before]:
                del self._claims[before]
        self.servers.pop(key, None)
        self._problems.pop(key, None)
        if raw is not None:
            server = ServerAuth.of(raw)
            claim = (server.auth_server, acceptance.claim_of(server))
            self.servers[key], self._claim_of[key] = server, claim
            self._claims[claim].add(key)
            self._by_auth_server[claim[0]].add(key)
            self._by_namespace[key.namespace].add(key)
            touched.add(claim)
        for auth_server, _ in touched:
            self._accepted.pop(auth_server, None)
        return touched

    def _put_status(self, key: Key, before: ServerAuth, now: ServerAuth) -> None:
        """Nothing that anybody decides by has changed: what was decided stays."""
        self.servers[key] = now
        known = self._problems.get(key)
        if known is not None and known[0] is before:
            self._problems[key] = (now, *known[1:])

    def _keep_problem(self, server: Key, before: AuthServer, now: AuthServer) -> None:
        known = self._problems.get(server)
        if known is not None and known[1] is before:
            self._problems[server] = (known[0], now, *known[2:])

    def servers_of(self, auth_server: Key) -> list[ServerAuth]:
        return [self.servers[key] for key in sorted(self._by_auth_server.get(auth_server, ()))]

    def servers_in(self, namespace: str) -> list[Key]:
        return sorted(self._by_namespace.get(namespace, ()))

    def claimants(self, claim: Claim) -> list[Key]:
        return sorted(self._claims.get(claim, ()))

    def counts(self, auth_server: Key) -> AuthServer | None:
        """The MCPAuthServer, if it is one that counts."""
        if auth_server.namespace != self._namespace:
            return None
        return self.auth_servers.get(auth_server)

    def verdict(self, key: Key, now: datetime) -> Condition:
        """The condition Accepted of a server that is there."""
        server = self.servers[key]
        claim = self._claim_of[key]
        auth_server = self.counts(claim[0])
        claimants = [self.servers[one] for one in self._claims[claim]]
        held = None
        if auth_server is not None and claim[1]:
            valid = self._valid(claim, auth_server)
            held = resource_map.hold(
                claim[1], auth_server, self.owners(auth_server.name), valid, now
            )
        return acceptance.decide(
            server,
            problem=lambda one: self._problem(one, auth_server),
            claimants=claimants,
            hold=held,
        )

    def accepted(self, auth_server: Key, now: datetime) -> list[ServerAuth]:
        """The servers that are in the map; decided again after a change, or when time decides."""
        known = self._accepted.get(auth_server)
        if known is None or now >= known.until:
            keys = tuple(
                one.key
                for one in self.servers_of(auth_server)
                if one.live and self.verdict(one.key, now).holds
            )
            counted = self.counts(auth_server)
            ends = (one.until for one in (counted.reserved if counted is not None else ()))
            until = min((end for end in ends if end > now), default=_NEVER)
            self._accepted[auth_server] = known = _Accepted(keys, until)
        return [self.servers[key] for key in known.keys]

    def reservations(self, auth_server: AuthServer, now: datetime) -> list[Reservation]:
        """What has to be in the status before the map is written."""
        before = self.owners(auth_server.name)
        wanted = {*before, *(one.resource for one in auth_server.reserved)}
        claims = {one: self._valid((auth_server.key, one), auth_server) for one in wanted}
        return resource_map.reservations(auth_server, before, claims, now)

    def owners(self, auth_server: str) -> Mapping[str, Mapping[str, Any]]:
        """The owners by resource in the map as it is in the cluster."""
        names = (
            resource_map.config_map_name(auth_server, number)
            for number in range(resource_map.SHARDS)
        )
        return _Joined([self._shards[name] for name in names if name in self._shards])

    def _valid(self, claim: Claim, auth_server: AuthServer) -> Claims:
        return {
            key: self.servers[key].uid
            for key in self._claims.get(claim, ())
            if self.servers[key].live and self._problem(self.servers[key], auth_server) is None
        }

    def _problem(self, server: ServerAuth, auth_server: AuthServer | None) -> Condition | None:
        """`acceptance.problem_of`, remembered: each map asks it of every server again."""
        labels_now = self.labels.get(server.key.namespace)
        known = self._problems.get(server.key)
        if (
            known is not None
            and known[0] is server
            and known[1] is auth_server
            and known[2] is labels_now
        ):
            return known[3]
        problem = acceptance.problem_of(server, auth_server, self.labels)
        self._problems[server.key] = (server, auth_server, labels_now, problem)
        return problem


def _is_only_status(before: AuthServer, now: AuthServer) -> bool:
    return same_wish(before.raw, now.raw) and before.reserved == now.reserved


@dataclass(frozen=True)
class _Accepted:
    """Who was accepted; it stays so until that time, if nothing changes."""

    keys: tuple[Key, ...]
    until: datetime


class _Joined(Mapping[str, Mapping[str, Any]]):
    """Several mappings as one, without a copy: ten thousand entries are asked for one by one."""

    def __init__(self, parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> None:
        self._parts = tuple(parts)

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        for part in self._parts:
            if key in part:
                return part[key]
        raise KeyError(key)

    def __iter__(self) -> Any:
        return iter({key: None for part in self._parts for key in part})

    def __len__(self) -> int:
        return len({key for part in self._parts for key in part})
