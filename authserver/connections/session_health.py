"""Whether a session can still give its client's workload anything, asked before a refresh.

A client that gets new tokens for a session without a usable connection meets the same 401 at its
MCP server again, and many clients never open a sign-in then. So its refresh grant is refused
`invalid_grant` first (RFC 6749 section 5.2), and nothing is rotated. The session does not end: a
sign-in by any client of the user puts it right.
"""

from authserver.connections.freshness import lasts, refreshable
from authserver.connections.registration_binding import (
    REFRESH_GRACE_SECONDS,
    RegistrationBinding,
)
from authserver.oauth.errors import InvalidGrant, ProtocolError
from authserver.storage.connections import Connections
from authserver.storage.records import Connection, Session
from chassis.clock import Clock


class SessionHealth:
    def __init__(
        self,
        connections: Connections,
        binding: RegistrationBinding,
        clock: Clock,
    ) -> None:
        self._connections, self._binding, self._clock = connections, binding, clock

    async def check(self, session: Session) -> None:
        """Raises InvalidGrant where a token was wanted and only a sign-in can bring it.

        That is: a release was refused for it, the connection to the upstream that identifies the
        user is dead or missing, or no connection can give a token. An upstream that was declined
        or was added later is not missed. Raises TemporarilyUnavailable for an hour where the
        configuration is in the way.
        """
        if session.sign_in_required:
            raise InvalidGrant("release_was_refused")
        identifying = await self._connections.identifying(
            session.user_id, session.owner, session.owner_uid
        )
        if not identifying:
            raise InvalidGrant("identifying_connection_missing")
        living = [connection for connection in identifying if self._can_give(connection)]
        if not living:
            raise InvalidGrant("identifying_connection_dead")
        await self._check_registrations(living)

    async def _check_registrations(self, connections: list[Connection]) -> None:
        """Raises where none of them belongs to a registration that is configured now."""
        refusals: list[ProtocolError] = []
        for connection in connections:
            try:
                await self._binding.check(connection, REFRESH_GRACE_SECONDS)
            except ProtocolError as refused:
                refusals.append(refused)
            else:
                return
        # One that may come back within its hour is waited for.
        raise max(refusals, key=lambda refusal: refusal.status_code)

    def _can_give(self, connection: Connection) -> bool:
        """Whether it holds a token that is valid now, or a refresh token to get one."""
        if connection.rejected:
            return False
        return refreshable(connection) or lasts(connection.tokens, self._clock(), 0)
