"""MCPServerAuth: its credential and its status."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from chassis.logs import Log
from controller.api import conditions
from controller.api.auth_server import AuthServer
from controller.api.conditions import Reason
from controller.api.kinds import MCP_SERVER_AUTH, SECRET, SECRET_METADATA
from controller.api.objects import Key, Object, annotations, dicts, generation, version
from controller.api.server_auth import ServerAuth
from controller.certificate_objects import CertificateObjects
from controller.cluster import ApiError
from controller.issuing.rotation import AuthorityState
from controller.network_policies import NetworkPolicies
from controller.reconcile import resource_map, server_auth, server_credential
from controller.reconcile.cert_manager import Given, Missing
from controller.reconcile.plan import Plan
from controller.reconcile.server_credential import Known, Unprepared
from controller.world import OPTED_IN_PODS, Work, World, authority_of, bundle_of

_log = Log("reconcile")

_WAIT_FOR_AUTHORITY: Final = timedelta(seconds=5)
_LOOK_THROUGH_AGAIN: Final = timedelta(seconds=5)
_TRY_NAMESPACE_AGAIN: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class _Looked:
    """A credential that was good under these circumstances."""

    circumstances: tuple[object, ...]
    known: Known
    until: datetime
    version: str


class ServerReconciler:
    """MCPServerAuth: its credential and its status."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._certificates = CertificateObjects(world)
        self._network_policies = NetworkPolicies(world)
        self._looked: dict[Key, _Looked] = {}
        self._expiries: dict[Key, datetime] = {}
        # Asked at a scrape: at each change it would cost as much as there are servers.
        world.metrics.soonest_expiry.set_function(self._soonest_expiry)

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
        if _is_too_early(observed):
            return now + _WAIT_FOR_AUTHORITY
        policy = await self._network_policies.put(server, observed.accepted)
        observed = replace(observed, network_policy=policy)
        observed, plan = await self._put(server, observed, now)
        self._remember(server, observed, plan.ends, plan.again_at, now)
        await world.applier.write_status(MCP_SERVER_AUTH, server.raw, plan.status)
        for event in plan.events:
            if event.reason == "CertificateIssued":
                assert observed.auth_server is not None
                source = observed.auth_server.workload_certificates.source
                world.metrics.certificates.labels(source, "issued").inc()
                _log.info(
                    "certificate_issued",
                    server=str(key),
                    holder=f"Secret/{key.namespace}/{server_credential.secret_name(server)}",
                    serial=event.facts["serial"],
                    ends=event.facts["ends"],
                )
            await world.applier.record(server.raw, event)
        if observed.without_sidecar:  # one may have been made anew just now
            look = Work(OPTED_IN_PODS, Key(key.namespace, ""))
            world.enqueue(look, now + _LOOK_THROUGH_AGAIN)
        return self._again(plan.status, plan.again_at, now)

    async def _put(
        self, server: ServerAuth, observed: server_credential.Observed, now: datetime
    ) -> tuple[server_credential.Observed, Plan]:
        """Put the credential into the cluster; what was observed by then, and the plan."""
        plan = server_auth.plan(server, observed, now, self._world.makers)
        for wanted in plan.certificates:
            given = await self._certificates.put(wanted, observed.given or Given())
            observed = replace(observed, given=given)
            plan = server_auth.plan(server, observed, now, self._world.makers)
        try:
            await self._write(plan, observed)
        except ApiError as error:
            if error.conflict:
                # It is not ours, or we have not seen it yet: look at it.
                name = server_credential.credential_key(server)
                seen = await self._world.cluster.get(SECRET, name)
                observed = replace(observed, credential=seen)
                plan = server_auth.plan(server, observed, now, self._world.makers)
                await self._write(plan, observed)
            elif error.forbidden:
                observed = replace(observed, credential=Unprepared.NAMESPACE)
                plan = server_auth.plan(server, observed, now, self._world.makers)
            else:
                raise
        return observed, plan

    async def _write(self, plan: Plan, observed: server_credential.Observed) -> None:
        applier = self._world.applier
        for wanted in plan.apply:
            if wanted["kind"] == "Secret" and observed.credential is None:
                await applier.create(wanted)
            else:
                await applier.apply(wanted, _present(observed.credential))

    async def _observed(self, server: ServerAuth, now: datetime) -> server_credential.Observed:
        world = self._world
        verdict = world.index.verdict(server.key, now)
        counted = world.index.counts(server.auth_server)
        authority = authority_of(world, counted, "workloads") if counted is not None else None
        observed = server_credential.Observed(
            counted,
            verdict,
            self._programmed(server),
            authority,
            injected_pods=len(world.pods_of.get(server.key, ())),
            without_sidecar=world.without_sidecar.get(server.key, ()),
        )
        if counted is None or not verdict.holds:
            return observed
        match counted.workload_certificates.source:
            case "PodCertificate":
                return observed
            case "CertManager":
                trusted = bundle_of(world, counted, "workloads")
                return replace(observed, given=await self._given(server), trusted=trusted)
            case _:
                credential = await self._credential(server, counted, authority, now)
                return replace(observed, credential=credential)

    async def _given(self, server: ServerAuth) -> Given:
        """What cert-manager keeps for this server; the Secret once it is said to be good."""
        world, name = self._world, server_credential.credential_key(server)
        given = await self._certificates.given(name)
        world.tenant_objects.follow(SECRET_METADATA, name.namespace)  # tells of a renewal
        ready = conditions.find((given.certificate or {}).get("status"), "Ready") or {}
        if ready.get("status") != "True":
            return given
        try:
            return replace(given, secret=await world.cluster.get(SECRET, name))
        except ApiError as error:
            if error.forbidden:
                return replace(given, missing=Missing.RIGHTS)
            raise

    async def _credential(
        self,
        server: ServerAuth,
        counted: AuthServer,
        authority: AuthorityState | None,
        now: datetime,
    ) -> Object | Known | Unprepared | None:
        """The Secret of source BuiltIn. One that was good a while ago is not read again."""
        world, name = self._world, server_credential.credential_key(server)
        present = world.tenant_objects.follow(SECRET_METADATA, name.namespace)
        if present is not None and name not in present:
            return None
        looked = self._looked.get(server.key)
        if (
            looked is not None
            and looked.circumstances == _circumstances(server, counted, authority)
            and now < min(looked.until, looked.known.again_at)
            and (present is None or looked.version == version(present[name]))
        ):
            return looked.known
        try:
            return await world.cluster.get(SECRET, name)
        except ApiError as error:
            if not error.forbidden:
                raise
            return Unprepared.NAMESPACE

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
        observed: server_credential.Observed,
        ends: datetime | None,
        again_at: datetime | None,
        now: datetime,
    ) -> None:
        """A Secret that is good is looked at again with the next resync only."""
        if isinstance(observed.credential, Unprepared):
            # The certificate that was written before still ends: an alert looks for that.
            self._looked.pop(server.key, None)
            return
        if ends is None or observed.auth_server is None:
            self._forget(server.key)
            return
        self._expiries[server.key] = ends
        if again_at is None:  # cert-manager renews it
            self._looked.pop(server.key, None)
            return
        circumstances = _circumstances(server, observed.auth_server, observed.authority)
        resync = timedelta(minutes=self._world.settings.resync_minutes)
        former = self._looked.get(server.key)
        until = former.until if former and isinstance(observed.credential, Known) else now + resync
        name = server_credential.credential_key(server)
        written = self._world.applier.version_of(SECRET, name)
        if isinstance(observed.credential, Known) and former is not None:
            written = former.version
        elif isinstance(observed.credential, Mapping):
            written = written or version(observed.credential)
        self._looked[server.key] = _Looked(circumstances, Known(ends, again_at), until, written)

    def _soonest_expiry(self) -> float:
        """Unix time; 0 where there is no certificate."""
        return min((ends.timestamp() for ends in self._expiries.values()), default=0.0)

    def _forget(self, key: Key) -> None:
        self._looked.pop(key, None)
        self._expiries.pop(key, None)
        if key not in self._world.index.servers:
            self._world.without_sidecar.pop(key, None)
        if not self._world.index.servers_in(key.namespace):
            self._world.tenant_objects.forget(key.namespace)

    def _again(
        self, status: Mapping[str, Any], again_at: datetime | None, now: datetime
    ) -> datetime:
        times = [now + timedelta(minutes=self._world.settings.resync_minutes)]
        if again_at is not None:
            times.append(again_at)
        reasons = {one.get("reason") for one in dicts(status.get("conditions"))}
        if Reason.NAMESPACE_NOT_PREPARED in reasons:
            times.append(now + _TRY_NAMESPACE_AGAIN)
        return min(times)


def _is_too_early(observed: server_credential.Observed) -> bool:
    """Whether the authority is just being made: its coming brings us here again, at once.

    A status that says so would be a write more for each of a thousand objects.
    """
    counted = observed.auth_server
    return (
        counted is not None
        and observed.accepted.holds
        and observed.authority is None
        and counted.workload_certificates.source == "BuiltIn"
        and conditions.find(counted.status, "CertificatesReady") is None
    )


def _present(credential: object) -> Object | None:
    return credential if isinstance(credential, Mapping) else None


def _circumstances(
    server: ServerAuth, counted: AuthServer, authority: AuthorityState | None
) -> tuple[object, ...]:
    serial = authority.current.certificate.serial_number if authority is not None else None
    # Who changes the object, or annotates it, has its Secret looked at.
    wish = (server.uid, generation(server.raw), tuple(sorted(annotations(server.raw).items())))
    return (*wish, counted.trust_domain, counted.workload_certificates, serial)
