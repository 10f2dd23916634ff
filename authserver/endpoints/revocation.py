"""Token revocation (RFC 7009): revoking any token of a session ends the session."""

from collections.abc import Mapping

from authserver.audit import Audit, Outcome, subject_of
from authserver.clients.authentication import ClientAuthentication
from authserver.connections.termination import SessionTermination
from authserver.handles import hash_of
from authserver.oauth.errors import InvalidRequest
from authserver.storage.records import Session
from authserver.storage.refresh_tokens import RefreshTokens
from authserver.storage.sessions import Sessions
from authserver.tokens.access_tokens import AccessTokens
from authserver.tokens.jws import BadToken
from chassis.clock import Clock


class Revocation:
    """POST /oauth/revoke."""

    def __init__(
        self,
        authentication: ClientAuthentication,
        sessions: Sessions,
        refresh_tokens: RefreshTokens,
        termination: SessionTermination,
        tokens: AccessTokens,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._authentication, self._sessions = authentication, sessions
        self._termination, self._refresh_tokens = termination, refresh_tokens
        self._tokens, self._audit, self._clock = tokens, audit, clock

    async def handle(self, fields: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """End the session of a token; a token that is none, or another client's, changes nothing.

        Raises ProtocolError if client authentication fails, and StorageUnavailable if the end could
        not be recorded: a response of 200 means that it was (section 2.2).
        """
        client = await self._authentication.authenticate(fields, headers, self._clock())
        token = fields.get("token")
        if token is None:
            raise InvalidRequest("no_token", "token is missing")
        session = await self._session(token)
        if session is not None and session.client_id == client.client_id:
            await self._termination.end(session, "revoked")
            self._audit.revocation(subject_of(session), Outcome.SUCCESS)

    async def _session(self, token: str) -> Session | None:
        if "." not in token:
            return await self._refresh_tokens.session(hash_of(token))
        try:
            return await self._sessions.get(self._tokens.verify(token, self._clock()).tsid)
        except BadToken:
            return None
