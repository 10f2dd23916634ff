"""Ending a session: its tokens die, and connections that nobody holds any more are purged.

What is purged is also revoked at its upstream, best effort and in the background: our own copy
is gone first, so a slow upstream cannot keep it alive here.
"""

import asyncio

from authserver.audit import Audit, Outcome, subject_of
from authserver.storage.connections import Connections
from authserver.storage.records import Connection, Session
from authserver.storage.sessions import Sessions
from authserver.upstream.contract import UpstreamFailure, Upstreams
from chassis.clock import Clock
from chassis.logs import Log
from chassis.spiffe_id import Workload

_log = Log("endings")


class SessionTermination:
    def __init__(
        self,
        sessions: Sessions,
        connections: Connections,
        upstreams: Upstreams,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._sessions, self._connections = sessions, connections
        self._upstreams, self._audit, self._clock = upstreams, audit, clock
        self._revoking: set[asyncio.Task[None]] = set()

    async def end(self, session: Session, reason: str) -> None:
        """End a session and purge what nobody else holds; ending an ended one is no error.

        A consent remembered for the same client and resource goes with it.
        """
        now = int(self._clock())
        await self._sessions.end(session.tsid, now)
        _log.info("session_ended", reason=reason)
        self._audit.session_end(subject_of(session), Outcome.SUCCESS, reason)
        await self.purge_unused(session.user_id, session.owner, now)

    async def purge_unused(self, user_id: str, owner: Workload, now: int) -> None:
        """Delete this user's connections for `owner` if no session that lives `now` holds them."""
        for purged in await self._connections.purge_unused(user_id, owner, now):
            task = asyncio.create_task(self._revoke(purged))
            self._revoking.add(task)
            task.add_done_callback(self._revoking.discard)

    async def drain(self) -> None:
        """Wait for the revocations under way; for the end of the process and for tests."""
        await asyncio.gather(*self._revoking)

    async def _revoke(self, purged: Connection) -> None:
        upstream = self._upstreams.get(purged.key.upstream)
        if upstream is None:
            return
        try:
            await upstream.revoke(purged.tokens)
        except UpstreamFailure as failure:
            _log.warning("upstream_revocation_failed", upstream=upstream.name, reason=str(failure))
