"""Access tokens that are good now: rightly signed, and of a session that has not ended."""

from authserver.storage.sessions import Sessions
from authserver.tokens.access_tokens import AccessTokens, VerifiedClaims
from authserver.tokens.jws import BadToken
from chassis.clock import Clock


class LiveTokens:
    def __init__(self, sessions: Sessions, tokens: AccessTokens, clock: Clock) -> None:
        self._sessions, self._tokens, self._clock = sessions, tokens, clock

    async def verify(self, unverified: str) -> VerifiedClaims | None:
        """The claims of a good token whose session lives and is the token's."""
        try:
            claims = self._tokens.verify(unverified, self._clock())
        except BadToken:
            return None
        session = await self._sessions.get(claims.tsid)
        if (
            session is None
            or not session.live(self._clock())
            or session.user_id != claims.subject
            or session.client_id != claims.client_id
        ):
            return None
        return claims
