"""Ending a session: its tokens die, and connections that nobody holds any more are purged.

What is purged is also revoked at its upstream, best effort and in the background: our own copy
is gone first, so a slow upstream cannot keep it alive here.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from authserver.audit import Audit, Outcome, Subject, subject_of
from authserver.connections.registration_binding import RegistrationBinding
from authserver.storage.connections import Connections
from authserver.storage.contract import StorageUnavailable
from authserver.storage.records import Connection, ConnectionKey, Session
from authserver.storage.sessions import Sessions
from authserver.upstream.contract import UpstreamFailure
from chassis.clock import Clock
from chassis.logs import Log
from chassis.spiffe_id import Workload

_log = Log("termination")


class Fate(StrEnum):
    """What became of a purged connection's grant at its upstream."""

    REVOKED = "revoked"
    STILL_USED = "still_used"
    NO_REVOCATION_ENDPOINT = "no_revocation_endpoint"
    REGISTRATION_NOT_CONFIGURED = "registration_not_configured"
    UPSTREAM_FAILED = "upstream_failed"
    STORAGE_UNAVAILABLE = "storage_unavailable"


@dataclass(frozen=True)
class Revoked:
    """A purged connection and the fate of its grant; `reason` is a code where there is more."""

    key: ConnectionKey
    fate: Fate
    reason: str = ""


Revocations = list[asyncio.Task[Revoked]]


class SessionTermination:
    def __init__(
        self,
        sessions: Sessions,
        connections: Connections,
        binding: RegistrationBinding,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._sessions, self._connections = sessions, connections
        self._binding, self._audit, self._clock = binding, audit, clock
        self._revoking: set[asyncio.Task[Revoked]] = set()

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
        return self.revoke_all(await self._connections.purge_unused(user_id, owner, now))

    async def disconnect(self, key: ConnectionKey) -> Revocations:
        """Delete one connection. Its sessions stay, and need a new sign-in for it."""
        return self.revoke_all(await self._connections.remove(key, int(self._clock())))

    def revoke_all(self, purged: list[Connection]) -> Revocations:
        """Revoke deleted connections, and what was made of them, in the background."""
        tasks = [asyncio.create_task(self._revoke(one)) for one in purged]
        for task in tasks:
            self._revoking.add(task)
            task.add_done_callback(self._revoking.discard)
        return tasks

    def not_revoked(self, user_id: str, upstream: str) -> None:
        """List a purged connection whose registration is not configured: nobody could revoke it."""
        subject = Subject(user_id, upstream=upstream)
        self._audit.connection_purge(subject, Outcome.FAILED, "not_revoked_upstream")
        _log.warning("not_revoked_upstream", upstream=upstream, reason="registration")

    async def drain(self) -> None:
        """Wait for the revocations under way; for the end of the process and for tests."""
        await asyncio.gather(*self._revoking)

    async def _revoke(self, purged: Connection) -> Revoked:
        """Revoke where the tokens came from, or nowhere: no other upstream may see them."""
        key, upstream = purged.key, self._binding.upstream_of(purged)
        if upstream is None:
            self.not_revoked(key.user_id, key.upstream)
            return Revoked(key, Fate.REGISTRATION_NOT_CONFIGURED)
        try:
            if upstream.revocation_ends_grant and await self._connections.has_another(
                key.user_id, key.upstream
            ):
                # It would end the grant that the other connection lives on.
                _log.info("not_revoked_upstream", upstream=key.upstream, reason="still_used")
                return Revoked(key, Fate.STILL_USED)
            revoked = await upstream.revoke(purged.tokens)
        except UpstreamFailure as failure:
            _log.warning("upstream_revocation_failed", **failure.facts)
            return Revoked(key, Fate.UPSTREAM_FAILED, str(failure))
        except StorageUnavailable:
            _log.warning("upstream_revocation_failed", upstream=key.upstream, reason="storage_down")
            return Revoked(key, Fate.STORAGE_UNAVAILABLE)
        return Revoked(key, Fate.REVOKED if revoked else Fate.NO_REVOCATION_ENDPOINT)
