"""MCPServerAuth: its credential and its status."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from chassis.logs import Log
from controller.api import conditions
from controller.api.conditions import Reason
from controller.api.kinds import CERTIFICATE, MCP_SERVER_AUTH, SECRET
from controller.api.objects import Key, Object
from controller.api.v1alpha1 import AuthServer, ServerAuth
from controller.cluster import ApiError
from controller.issuing.rotation import AuthorityState
from controller.reconcile import resource_map, server_auth
from controller.reconcile.server_auth import Known, Unprepared
from controller.world import World, authority_of

_log = Log("reconcile")

_TRY_NAMESPACE_AGAIN: Final = timedelta(minutes=1)


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
            and resource_map.holds(built, server)
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
    return (server.uid, counted.trust_domain, counted.workload_certificates, serial)
