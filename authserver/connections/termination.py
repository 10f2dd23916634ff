"""Ending a session: its tokens die, and connections that nobody holds any more are purged.

What is purged is queued for revocation at its upstream in the same step: our own copy is gone
first, so a slow upstream cannot keep it alive here.
"""

from authserver.audit import Audit, Outcome, subject_of
from authserver.connections.upstream_revocation import Revocations, UpstreamRevoker
from authserver.storage.connections import Connections
from authserver.storage.records import ConnectionKey, Session
from authserver.storage.sessions import Sessions
from chassis.clock import Clock
from chassis.logs import Log
from chassis.spiffe_id import Workload

_log = Log("termination")


class SessionTermination:
    def __init__(
        self,
        sessions: Sessions,
        connections: Connections,
        revoker: UpstreamRevoker,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._sessions, self._connections = sessions, connections
        self._revoker, self._audit, self._clock = revoker, audit, clock

    async def end(self, session: Session, reason: str) -> Revocations:
        """End a session and purge what nobody else holds; ending an ended one is no error.

        A consent remembered for the same client and resource goes with it. The revocations at
        upstreams go on in the background.
        """
        now = int(self._clock())
        await self._sessions.end(session.tsid, now)
        _log.info("session_ended", reason=reason)
        self._audit.session_end(subject_of(session), Outcome.SUCCESS, reason)
        return await self.purge_unused(session.user_id, session.owner, now)

    async def purge_unused(self, user_id: str, owner: Workload, now: int) -> Revocations:
        """Delete this user's connections for `owner` if no session that lives `now` holds them."""
        return self._revoker.start(await self._connections.purge_unused(user_id, owner, now))

    async def disconnect(self, key: ConnectionKey) -> Revocations:
        """Delete one connection. Its sessions stay, and need a new sign-in for it."""
        return self._revoker.start(await self._connections.remove(key, int(self._clock())))
