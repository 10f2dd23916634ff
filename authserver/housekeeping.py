"""What happens by itself, on one replica at a time: what is over goes, gauges count the rest."""

import asyncio
from contextlib import suppress
from typing import Final

from authserver.audit import Audit
from authserver.connections.registration_binding import RegistrationBinding
from authserver.connections.termination import SessionTermination
from authserver.connections.upstream_revocation import UpstreamRevoker
from authserver.metrics import Metrics
from authserver.oauth.resources import Resource, ResourceMap
from authserver.pacing import paced
from authserver.storage.absent_registrations import AbsentRegistrations
from authserver.storage.connections import Connections
from authserver.storage.contract import StorageUnavailable
from authserver.storage.exchanged_tokens import ExchangedTokens
from authserver.storage.expiry import BATCH, Expiry
from authserver.storage.leases import Leases
from authserver.storage.operator_events import OperatorEvents
from authserver.storage.orphaned_owners import OrphanedOwners
from authserver.storage.sessions import Sessions
from authserver.storage.users_needed import UsersNeeded
from authserver.values import Value
from chassis.clock import Clock
from chassis.logs import Log, LogWriteFailed

_log = Log("housekeeping")

_EVERY_SECONDS: Final = 30
# A holder that dies is missed for two rounds at most.
_LEASE_SECONDS: Final = 75
_LEASE: Final = "housekeeping"
# For so long a resource may be out of the map, or another's, and cost its users no sign-in: a slip
# is mended by then, and who has to look into a change finds its sessions. The same holds for the
# connections of a registration.
_ORPHANED_SECONDS: Final = 7 * 86400
_EXCHANGED_SECONDS: Final = 7 * 86400
# From when a map says that an owner adopts another's sessions until they are its own: by then every
# replica has that map, and pods with a map of before are gone.
_ADOPTION_SECONDS: Final = 600
# Between two batches the flows have the database to themselves.
_PAUSE_SECONDS: Final = 0.05
_MAX_BATCHES: Final = 200
# A mass of ended sessions is swept step by step, and the flows have four fifths of the time.
_RESTS: Final = 4.0
_DROPPED_AT_ONCE: Final = 10
_WEEK_SECONDS: Final = 7 * 86400
# The number changes slowly, and its query looks at every session that expires within a week.
_USERS_NEEDED_SECONDS: Final = 600


class CleanUpStores(Value, frozen=True):
    """What the clean-up reads and deletes."""

    leases: Leases
    expiry: Expiry
    orphaned_owners: OrphanedOwners
    absent_registrations: AbsentRegistrations
    sessions: Sessions
    connections: Connections
    exchanged_tokens: ExchangedTokens
    operator_events: OperatorEvents
    users_needed: UsersNeeded


class Housekeeping:
    def __init__(
        self,
        stores: CleanUpStores,
        resources: ResourceMap,
        binding: RegistrationBinding,
        termination: SessionTermination,
        revoker: UpstreamRevoker,
        audit: Audit,
        metrics: Metrics,
        clock: Clock,
        replica: str,
        *,
        absolute_seconds: int,
    ) -> None:
        self._users_needed, self._users_needed_at = stores.users_needed, float("-inf")
        self._absolute_seconds = absolute_seconds
        self._leases, self._replica = stores.leases, replica
        self._expiry, self._absent_registrations = stores.expiry, stores.absent_registrations
        self._sessions, self._connections = stores.sessions, stores.connections
        self._exchanged_tokens = stores.exchanged_tokens
        self._operator_events = stores.operator_events
        self._orphaned_owners = stores.orphaned_owners
        self._resources, self._binding = resources, binding
        self._termination, self._revoker, self._audit = termination, revoker, audit
        self._metrics, self._clock = metrics, clock
        self._succeeded: set[Resource] = set()
        self._adopting: dict[Resource, float] = {}

    async def run(self) -> None:
        """Until cancelled. Storage that is down is no reason to stop."""
        while True:
            try:
                await self.round()
            except StorageUnavailable:
                _log.warning("storage_down")
            await asyncio.sleep(_EVERY_SECONDS)

    async def round(self) -> None:
        """Sweep and count if it is this replica's turn."""
        await self._orphaned_owners.are_named(self._resources.owned())
        await self._absent_registrations.are_named(self._binding.named())
        await self.end_inherited()
        await self.adopt()
        if await self._is_ours():
            await self._write_operator_events()
            await self.sweep()
            await self._revoker.retry()
            await self.measure()
        else:
            self._measure_nothing()

    async def end_inherited(self) -> None:
        """End sessions of a deleted namesake of an owner: a new object inherits nothing.

        On every replica, and at once when the map changes.
        """
        renewed = self._resources.renewed()
        for one in renewed - self._succeeded:
            now = int(self._clock())
            while sessions := await self._inherited(one):
                for tsid in sessions:
                    await self._sessions.end(tsid, now)
                _log.info(
                    "sessions_orphaned", resource=one.url, owner=str(one.owner), count=len(sessions)
                )
        self._succeeded = renewed

    async def _inherited(self, resource: Resource) -> list[str]:
        """By the UID, and where the map has none by the time."""
        owned = (resource.url, resource.owner)
        if resource.owner_uid:
            return await self._orphaned_owners.sessions_of_others(owned, resource.owner_uids)
        return await self._orphaned_owners.sessions_before(owned, int(resource.owned_since or 0))

    async def adopt(self) -> None:
        """Give sessions of an earlier owner to the one that the map lets adopt them, in time."""
        adopting, now = self._resources.adopting(), self._clock()
        self._adopting = {one: self._adopting.get(one, now) for one in adopting}
        for one, since in self._adopting.items():
            if one.adopts is None or now < since + _ADOPTION_SECONDS:
                continue
            owned = (one.url, one.owner)
            count = await self._orphaned_owners.adopt(owned, one.owner_uid, one.adopts)
            # New sessions have the new UID from here on; some may have begun meanwhile.
            self._resources.finish_adoption(one)
            count += await self._orphaned_owners.adopt(owned, one.owner_uid, one.adopts)
            _log.info("sessions_adopted", resource=one.url, owner=str(one.owner), count=count)

    async def _write_operator_events(self) -> None:
        """Put what operators' commands did into the audit trail of this process."""
        for event in await self._operator_events.waiting():
            try:
                self._audit.operator_command(event.fields)
            except LogWriteFailed:
                return  # it waits
            await self._operator_events.forget(event)

    async def drain(self) -> None:
        """Leave the lease to another replica at once; for the end of the process."""
        with suppress(StorageUnavailable):
            await self._leases.give_up(_LEASE, self._replica)

    async def sweep(self) -> None:
        """Delete what is over, batch by batch; connections nobody holds any more go with it."""
        for _ in range(_MAX_BATCHES):
            if not await self._swept_a_full_batch():
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            if not await self._is_ours():
                return
        await self._end_orphans()
        await self._drop_old_exchanges()
        await self._purge_absent_registrations()

    async def measure(self) -> None:
        self._metrics.sessions.set(await self._sessions.live(self._clock()))
        counts = await self._connections.counts()
        self._metrics.connections.clear()
        for upstream, dead, count in counts:
            self._metrics.connections.labels(upstream, "dead" if dead else "live").set(count)
        await self._revoker.measure()
        await self._measure_users_needed()

    async def _measure_users_needed(self) -> None:
        now = self._clock()
        if now - self._users_needed_at < _USERS_NEEDED_SECONDS:
            return
        needed = await self._users_needed.count(
            now, within=_WEEK_SECONDS, absolute_seconds=self._absolute_seconds
        )
        self._users_needed_at = now
        self._metrics.users_needed.set(needed)

    async def _end_orphans(self) -> None:
        """End sessions of owners whom no map has named for a week, a batch of each.

        Nobody could be served from them. From now on they are over, and go with the next sweep.
        """
        now = int(self._clock())
        await self._orphaned_owners.find(self._resources.owned(), now)
        for owned in await self._orphaned_owners.since(now - _ORPHANED_SECONDS):
            orphans = await self._orphaned_owners.sessions_of(owned)
            for tsid in orphans:
                await self._sessions.end(tsid, now)
            if len(orphans) < BATCH:
                await self._orphaned_owners.forget(owned)
            if orphans:
                resource, owner = owned
                _log.info(
                    "sessions_orphaned", resource=resource, owner=str(owner), count=len(orphans)
                )

    async def _purge_absent_registrations(self) -> None:
        """Delete connections of registrations that no configuration has named for a week.

        A batch of each. Nobody can revoke them: their upstream or client is not configured. What
        an exchange made of them goes to its own upstream.
        """
        now, absent = int(self._clock()), self._absent_registrations
        await absent.find(self._binding.named(), now)
        for registered in await absent.before(now - _ORPHANED_SECONDS):
            purged = await absent.purge(registered, now)
            for connection in purged.connections:
                self._revoker.not_revoked(connection.user_id, connection.upstream)
            self._revoker.start(purged.queued)
            if len(purged.connections) < BATCH:
                await absent.forget(registered)

    async def _drop_old_exchanges(self) -> None:
        """Delete what an exchange made and nobody has had renewed for a week, a batch of it.

        What the configuration no longer asks for goes so; the rest is made anew when it is wanted.
        """
        now = int(self._clock())
        dropped = await self._exchanged_tokens.drop_older(now - _EXCHANGED_SECONDS, now)
        self._revoker.start(dropped)

    def _measure_nothing(self) -> None:
        """Another replica says how much there is; the sum over all replicas stays right."""
        self._metrics.sessions.set(0)
        self._metrics.connections.clear()
        self._revoker.measure_nothing()
        self._metrics.users_needed.set(0)
        self._users_needed_at = float("-inf")

    async def _is_ours(self) -> bool:
        now = int(self._clock())
        return await self._leases.take(_LEASE, self._replica, now=now, seconds=_LEASE_SECONDS)

    async def _swept_a_full_batch(self) -> bool:
        now = int(self._clock())
        removed = await self._expiry.expired(now)
        over = await self._expiry.over_sessions(now)
        # They go first: a session that is left is swept again, a connection without one never.
        for holder in {holder for holder in over.values() if holder is not None}:
            async with paced(_RESTS):
                await self._termination.purge_unused(*holder, now)
        tsids = list(over)
        for at in range(0, len(tsids), _DROPPED_AT_ONCE):
            async with paced(_RESTS):
                await self._expiry.drop_sessions(tsids[at : at + _DROPPED_AT_ONCE], now)
        return max(removed, len(over)) >= BATCH
