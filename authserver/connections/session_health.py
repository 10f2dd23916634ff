"""Whether a session can still give its client's workload anything, asked before a refresh.

A client that gets new tokens for a session without a usable connection meets the same 401 at its
MCP server again, and many clients never open a sign-in then. So its refresh grant is refused
`invalid_grant` first (RFC 6749 section 5.2), and nothing is rotated. The session does not end: a
sign-in by any client of the user puts it right.
"""

from typing import Final

from authserver.connections.freshness import lasts, refreshable
from authserver.connections.refresher import TokenRefresher
from authserver.oauth.errors import InvalidGrant, ProtocolError, TemporarilyUnavailable
from authserver.storage.connections import Connections
from authserver.storage.missing_upstreams import MissingUpstreams
from authserver.storage.records import Connection, Session
from authserver.storage.users import Users
from authserver.upstream.contract import Upstreams
from chassis.clock import Clock

# An operator puts a slip in the configuration right within this time, and it costs no sign-in.
CONFIGURATION_GRACE_SECONDS: Final = 3600
_RETRY_SECONDS: Final = 60


class SessionHealth:
    def __init__(
        self,
        connections: Connections,
        users: Users,
        missing: MissingUpstreams,
        upstreams: Upstreams,
        refresher: TokenRefresher,
        clock: Clock,
    ) -> None:
        self._connections, self._users, self._missing = connections, users, missing
        self._upstreams, self._refresher, self._clock = upstreams, refresher, clock

    async def check(self, session: Session) -> None:
        """Raises InvalidGrant where a token was wanted and only a sign-in can bring it.

        That is: a release was refused for it, the connection to the upstream that identifies the
        user is dead or missing, or no connection can give a token. An upstream that was declined
        or was added later is not missed. Raises TemporarilyUnavailable for an hour where the
        configuration is in the way.
        """
        if session.sign_in_required:
            raise InvalidGrant("release_was_refused")
        identifying = await self._identifying(session)
        if not identifying:
            raise InvalidGrant("identifying_connection_missing")
        living = [name for name, connection in identifying.items() if self._can_give(connection)]
        if not living:
            raise InvalidGrant("identifying_connection_dead")
        if not any(name in self._upstreams for name in living):
            await self._refuse_for_configuration(living[0])
        self._check_registrations([identifying[name] for name in living])

    def _check_registrations(self, connections: list[Connection]) -> None:
        """Raises where none of them belongs to a registration that is configured now.

        TemporarilyUnavailable in the first ten minutes, InvalidGrant from then on.
        """
        refusal: ProtocolError | None = None
        for connection in connections:
            try:
                return self._refresher.check_registration(connection)
            except ProtocolError as refused:
                refusal = refused
        if refusal is not None:
            raise refusal

    async def _identifying(self, session: Session) -> dict[str, Connection]:
        """The connections to the upstream account that the user is known by, by upstream.

        Usually one; more where two upstreams are the same provider.
        """
        user = await self._users.get(session.user_id)
        stored = await self._connections.of_user(session.user_id, session.owner)
        return {
            name: connection
            for name, connection in stored.items()
            if user is not None
            and connection.upstream_issuer == user.upstream_issuer
            and connection.upstream_subject == user.subject
        }

    def _can_give(self, connection: Connection) -> bool:
        """Whether it holds a token that is valid now, or a refresh token to get one."""
        if connection.rejected:
            return False
        return refreshable(connection) or lasts(connection.tokens, self._clock(), 0)

    async def _refuse_for_configuration(self, upstream: str) -> None:
        now = int(self._clock())
        if now - await self._missing.since(upstream, now) < CONFIGURATION_GRACE_SECONDS:
            raise TemporarilyUnavailable("upstream_not_configured", retry_after=_RETRY_SECONDS)
        raise InvalidGrant("upstream_not_configured")
