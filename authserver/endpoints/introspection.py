"""What a token says to those who may ask: userinfo (OpenID Connect) and introspection (RFC 7662).

Both look at the session behind the token, so that an ended one is known at once.
"""

from collections.abc import Mapping
from typing import Any

from authserver.clients.directory import ClientDirectory
from authserver.handles import hash_of
from authserver.oauth.errors import InsufficientScope, InvalidClient, InvalidRequest, InvalidToken
from authserver.oauth.scopes import OPENID
from authserver.storage.records import Session
from authserver.storage.refresh_tokens import RefreshTokens
from authserver.storage.sessions import Sessions
from authserver.tokens.access_tokens import AccessTokens, VerifiedClaims
from authserver.tokens.jws import BadToken
from chassis.clock import Clock


class TokenFacts:
    """GET /oauth/userinfo and POST /oauth/introspect."""

    def __init__(
        self,
        issuer: str,
        clients: ClientDirectory,
        sessions: Sessions,
        refresh_tokens: RefreshTokens,
        tokens: AccessTokens,
        clock: Clock,
    ) -> None:
        self._issuer, self._clients, self._sessions = issuer, clients, sessions
        self._refresh_tokens, self._tokens, self._clock = refresh_tokens, tokens, clock

    async def userinfo(self, authorization: str | None) -> dict[str, Any]:
        """The user of a token with the scope `openid`: the subject and nothing more.

        Raises InvalidToken or InsufficientScope.
        """
        scheme, _, unverified = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not unverified:
            raise InvalidToken("no_bearer_token")
        claims = await self._live(unverified)
        if claims is None:
            raise InvalidToken("token_not_acceptable")
        if OPENID not in claims.scope.split():
            raise InsufficientScope("openid_not_granted")
        return {"sub": claims.subject}

    async def introspect(
        self, fields: Mapping[str, str], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """Whether a token of the asking client is alive, and what it carries.

        Only clients that prove themselves may ask, and only about their own tokens: to anyone
        else a token is as inactive as one that never was (section 2.2).
        """
        client = await self._clients.authenticate(fields, headers, self._clock())
        if client.auth_methods == ("none",):
            raise InvalidClient("public_clients_may_not_ask")
        token = fields.get("token")
        if token is None:
            raise InvalidRequest("no_token", "token is missing")
        if "." not in token:
            return self._of_refresh_token(await self._refreshable(token), client.client_id)
        claims = await self._live(token)
        if claims is None or claims.client_id != client.client_id:
            return {"active": False}
        return {
            "active": True,
            "iss": self._issuer,
            "sub": claims.subject,
            "aud": claims.audience,
            "client_id": claims.client_id,
            "scope": claims.scope,
            "exp": claims.expires_at,
            "iat": claims.issued_at,
            "nbf": claims.not_before,
            "jti": claims.jti,
            "token_type": "Bearer",
        }

    async def _live(self, unverified: str) -> VerifiedClaims | None:
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

    async def _refreshable(self, token: str) -> Session | None:
        session = await self._refresh_tokens.session_of_unused(hash_of(token), self._clock())
        return session if session is not None and session.live(self._clock()) else None

    def _of_refresh_token(self, session: Session | None, client_id: str) -> dict[str, Any]:
        if session is None or session.client_id != client_id:
            return {"active": False}
        return {
            "active": True,
            "iss": self._issuer,
            "sub": session.user_id,
            "client_id": session.client_id,
            "scope": session.scope,
            "exp": session.expires_at,
        }
