"""One class per kind of work: observe, plan, put the plan into the cluster."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from chassis.logs import Log
from controller.api import conditions
from controller.api.conditions import Condition, Reason
from controller.api.kinds import (
    CERTIFICATE,
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    MCP_AUTH_SERVER,
    MCP_SERVER_AUTH,
    POD,
    SECRET,
    VOLUME_CLAIM,
)
from controller.api.objects import Key, Object, annotations, format_time, generation, metadata, path
from controller.api.v1alpha1 import AuthServer, ServerAuth
from controller.cluster import ApiError
from controller.issuing.rotation import AuthorityState
from controller.reconcile import auth_server, resource_map, server_auth
from controller.reconcile.authserver_objects import Objects
from controller.reconcile.certificates import Which, authority_secret
from controller.reconcile.keys import EncryptionKeys, KeyPlan, SigningKeys
from controller.reconcile.server_auth import Known, Unprepared
from controller.world import RESOURCE_MAP, SERVER_AUTH, Work, World

_log = Log("reconcile")

MAP_ANNOTATION: Final = "tokenward.dev/resource-map"
_TOUCH_EVERY: Final = timedelta(seconds=5)
_LOOK_AGAIN: Final = timedelta(seconds=2)
_TRY_NAMESPACE_AGAIN: Final = timedelta(minutes=1)


def authority_of(world: World, server: AuthServer, which: Which) -> AuthorityState | None:
    """The authority `workloads` or `servers` of an MCPAuthServer, as it is in the cluster."""
    named = path(server.authority(which), "secretRef", "name")
    secret = str(named or authority_secret(server.name, which))
    return world.authority(secret, foreign=named is not None)


class AuthServerReconciler:
    """MCPAuthServer: its objects and its status."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self, key: Key) -> datetime | None:
        """When to come back, if nothing happens before."""
        world = self._world
        server = world.index.auth_servers.get(key)
        if server is None or not server.live or server.paused:
            return None
        if key.namespace != world.namespace:
            await world.applier.write_status(
                MCP_AUTH_SERVER, server.raw, _foreign_status(server, world)
            )
            return None
        now = world.clock()
        plan = auth_server.plan(
            server,
            self._observed(server),
            auth_server.Surroundings(
                world.settings.authserver_image,
                world.settings.cluster_domain,
                accepted=len(world.index.accepted(key, now)),
                pods_without_bundle=world.pods_without_bundle,
            ),
            now,
            world.makers,
        )
        await world.applier.run(plan)
        # A reservation is written with the map, by whoever writes the map.
        await world.applier.write_status(MCP_AUTH_SERVER, server.raw, plan.status, "reserved")
        for event in plan.events:
            if event.reason == "CertificateIssued":
                world.metrics.certificates.labels("BuiltIn", "issued").inc()
            await world.applier.record(server.raw, event)
        world.enqueue(Work(RESOURCE_MAP, key), None)
        return plan.again_at

    def _observed(self, server: AuthServer) -> auth_server.Observed:
        world, key = self._world, Key(server.namespace, server.name)
        return auth_server.Observed(
            world.own(SECRET),
            world.own(CONFIG_MAP),
            world.stores[DEPLOYMENT].get(key),
            world.stores[VOLUME_CLAIM].get(key),
            world.own(JOB),
            auth_server.own_pods(server, world.own(POD).values()),
        )


def _foreign_status(server: AuthServer, world: World) -> dict[str, Any]:
    text = f"only MCPAuthServers in namespace {world.namespace} count"
    accepted = Condition("Accepted", "False", Reason.NOT_PERMITTED, text)
    counted = [conditions.summary([accepted]), accepted]
    before = server.status.get("conditions")
    return {
        "observedGeneration": server.generation,
        "phase": "Failed",
        "conditions": conditions.render(counted, before, server.generation, world.clock()),
    }


class MapReconciler:
    """The resource map of an MCPAuthServer: written, announced, and seen in force."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._touched: dict[Key, tuple[str, datetime]] = {}

    async def run(self, key: Key) -> datetime | None:
        world = self._world
        server = world.index.counts(key)
        if server is None or not server.live or server.paused:
            world.maps.pop(key, None)
            world.shown.pop(key, None)
            return None
        now = world.clock()
        await self._reserve(server, now)
        built = resource_map.build(server, world.index.accepted(key, now))
        objects = _objects(server, world)
        for number, text in enumerate(built.shards):
            await world.applier.apply(objects.shard(number, text))
        world.maps[key] = built
        pods = _running(auth_server.own_pods(server, world.own(POD).values()))
        again = await self._touch(key, built, pods, now)
        if await self._look(key, built, pods):
            return again
        return min(again, now + _LOOK_AGAIN) if again else now + _LOOK_AGAIN

    async def _reserve(self, server: AuthServer, now: datetime) -> None:
        """Before the map forgets an owner, the status remembers it."""
        wanted = self._world.index.reservations(server, now)
        if wanted == list(server.reserved):
            return
        listed = [
            {"resource": one.resource, "namespace": one.namespace, "until": format_time(one.until)}
            for one in wanted
        ]
        self._world.check()
        change = {"status": {"reserved": listed or None}}
        await self._world.cluster.patch(MCP_AUTH_SERVER, server.key, change, "status")

    async def _touch(
        self, key: Key, built: resource_map.Map, pods: list[Object], now: datetime
    ) -> datetime | None:
        """A changed pod makes its kubelet look at its volumes at once, not within a minute."""
        mark = hashlib.sha256("".join(built.hashes).encode()).hexdigest()[:16]
        stale = [one for one in pods if _mark(one) != mark]
        if not stale:
            return None
        former, at = self._touched.get(key, ("", now - _TOUCH_EVERY))
        if former != mark and now < at + _TOUCH_EVERY:
            return at + _TOUCH_EVERY
        self._touched[key] = (mark, now)
        for pod in stale:
            change = {"metadata": {"annotations": {MAP_ANNOTATION: mark}}}
            name = Key(key.namespace, str(metadata(pod).get("name")))
            self._world.check()
            try:
                await self._world.cluster.patch(POD, name, change)
            except ApiError as error:
                if not error.not_found:
                    raise
        return None

    async def _look(self, key: Key, built: resource_map.Map, pods: list[Object]) -> bool:
        """Ask every pod what it has in force; whether it is this map, everywhere."""
        world = self._world
        if pods and _all_show(world.shown.get(key), len(pods), built):
            answers = world.shown[key]
        else:
            answers = [await world.probe.ask(pod) or {} for pod in pods]
        changed = answers != world.shown.get(key)
        world.shown[key] = answers
        if changed:
            for server in world.index.servers_of(key):
                if not _is_programmed(server):
                    world.enqueue(Work(SERVER_AUTH, server.key), None)
        return not pods or _all_show(answers, len(pods), built)


def _all_show(answers: list[Mapping[str, str]] | None, pods: int, built: resource_map.Map) -> bool:
    return (
        answers is not None
        and len(answers) == pods
        and all(
            one.get(resource_map.file_name(number)) == digest
            for one in answers
            for number, digest in enumerate(built.hashes)
        )
    )


def _is_programmed(server: ServerAuth) -> bool:
    programmed = conditions.find(server.status, "Programmed") or {}
    return (
        programmed.get("status") == "True"
        and programmed.get("observedGeneration") == server.generation
    )


def _mark(pod: Object) -> str | None:
    return (metadata(pod).get("annotations") or {}).get(MAP_ANNOTATION)


def _running(pods: tuple[Object, ...]) -> list[Object]:
    """Pods of the Deployment that have an address and do not end."""
    return [
        one
        for one in pods
        if path(one, "status", "podIP")
        and path(one, "status", "phase") == "Running"
        and not metadata(one).get("deletionTimestamp")
        and (metadata(one).get("labels") or {}).get("app.kubernetes.io/name")
        == "tokenward-authserver"
    ]


def _objects(server: AuthServer, world: World) -> Objects:
    """For objects that need neither keys nor a configuration."""
    ready = Condition("KeysReady", "True", Reason.KEYS_READY, "")
    nothing = KeyPlan(EncryptionKeys(""), SigningKeys(""), ready)
    return Objects(server, world.settings.authserver_image, {}, nothing, None)


@dataclass(frozen=True)
class _Looked:
    """A credential that was good under these circumstances."""

    circumstances: tuple[object, ...]
    known: Known
    until: datetime


class ServerReconciler:
    """MCPServerAuth: its credential and its status."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looked: dict[Key, _Looked] = {}
        self._expiries: dict[Key, datetime] = {}

    async def run(self, key: Key) -> datetime | None:
        world = self._world
        server = world.index.servers.get(key)
        if server is None or not server.live:
            self._forget(key)
            return None
        if server.paused:
            return None
        now = world.clock()
        observed = await self._observed(server, now)
        plan = server_auth.plan(server, observed, now, world.makers)
        try:
            for wanted in plan.apply:
                await world.applier.apply(wanted, _present(observed.credential))
        except ApiError as error:
            if not error.forbidden:
                raise
            refused = replace(observed, credential=Unprepared.NAMESPACE)
            plan = server_auth.plan(server, refused, now, world.makers)
        self._remember(server, observed, plan.ends, plan.again_at, now)
        await world.applier.write_status(MCP_SERVER_AUTH, server.raw, plan.status)
        for event in plan.events:
            if event.reason == "CertificateIssued":
                world.metrics.certificates.labels("BuiltIn", "issued").inc()
                _log.info("certificate_issued", server=str(key), detail=event.message)
            await world.applier.record(server.raw, event)
        return self._again(plan.status, plan.again_at, now)

    async def _observed(self, server: ServerAuth, now: datetime) -> server_auth.Observed:
        world = self._world
        verdict = world.index.verdict(server.key, now)
        counted = world.index.counts(server.auth_server)
        authority = authority_of(world, counted, "workloads") if counted is not None else None
        observed = server_auth.Observed(
            counted,
            verdict,
            self._programmed(server),
            authority,
            injected_pods=len(world.pods_of.get(server.key, ())),
        )
        if counted is None or not verdict.holds:
            return observed
        source = counted.workload_certificates.source
        if source == "PodCertificate":
            return observed
        looked = self._looked.get(server.key)
        if (
            looked is not None
            and looked.circumstances == _circumstances(server, counted, authority)
            and now < min(looked.until, looked.known.again_at)
        ):
            return replace(observed, credential=looked.known)
        kind = CERTIFICATE if source == "CertManager" else SECRET
        name = Key(server.key.namespace, server_auth.secret_name(server))
        try:
            return replace(observed, credential=await world.cluster.get(kind, name))
        except ApiError as error:
            if not error.forbidden:
                raise
            return replace(observed, credential=Unprepared.NAMESPACE)

    def _programmed(self, server: ServerAuth) -> bool | None:
        """Whether every pod has the entry of this very object in force."""
        world, shard = self._world, resource_map.shard_of(server.key)
        built = world.maps.get(server.auth_server)
        counted = world.index.counts(server.auth_server)
        if built is None or counted is None:
            return False
        if server.key in built.left_out:
            return None
        answers = world.shown.get(server.auth_server)
        name, digest = resource_map.file_name(shard), built.hashes[shard]
        return (
            bool(answers)
            and all(one.get(name) == digest for one in answers or ())
            and resource_map.holds(built, server, counted)
        )

    def _remember(
        self,
        server: ServerAuth,
        observed: server_auth.Observed,
        ends: datetime | None,
        again_at: datetime | None,
        now: datetime,
    ) -> None:
        """A Secret that is good is looked at again with the next resync only."""
        if ends is None or again_at is None or observed.auth_server is None:
            self._forget(server.key)
            return
        circumstances = _circumstances(server, observed.auth_server, observed.authority)
        resync = timedelta(minutes=self._world.settings.resync_minutes)
        former = self._looked.get(server.key)
        until = former.until if former and isinstance(observed.credential, Known) else now + resync
        self._looked[server.key] = _Looked(circumstances, Known(ends, again_at), until)
        self._expiries[server.key] = ends
        soonest = min(self._expiries.values())
        self._world.metrics.soonest_expiry.set(soonest.timestamp())

    def _forget(self, key: Key) -> None:
        self._looked.pop(key, None)
        self._expiries.pop(key, None)

    def _again(
        self, status: Mapping[str, Any], again_at: datetime | None, now: datetime
    ) -> datetime:
        times = [now + timedelta(minutes=self._world.settings.resync_minutes)]
        if again_at is not None:
            times.append(again_at)
        certificate = conditions.find(status, "CertificateReady") or {}
        if certificate.get("reason") == Reason.NAMESPACE_NOT_PREPARED:
            times.append(now + _TRY_NAMESPACE_AGAIN)
        return min(times)


def _present(credential: object) -> Object | None:
    return credential if isinstance(credential, Mapping) else None


def _circumstances(
    server: ServerAuth, counted: AuthServer, authority: AuthorityState | None
) -> tuple[object, ...]:
    serial = authority.current.certificate.serial_number if authority is not None else None
    # Who changes the object, or annotates it, has its Secret looked at.
    wish = (server.uid, generation(server.raw), tuple(sorted(annotations(server.raw).items())))
    return (*wish, counted.trust_domain, counted.workload_certificates, serial)
