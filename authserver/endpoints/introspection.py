"""What a token carries, for the client that holds it (RFC 7662)."""

from collections.abc import Mapping
from typing import Any

from authserver.clients.authentication import ClientAuthentication
from authserver.endpoints.live_tokens import LiveTokens
from authserver.handles import hash_of
from authserver.oauth.errors import InvalidClient, InvalidRequest
from authserver.storage.records import Session
from authserver.storage.refresh_tokens import RefreshTokens
from authserver.storage.sessions import Sessions
from chassis.clock import Clock


class Introspection:
    """POST /oauth/introspect."""

    def __init__(
        self,
        issuer: str,
        authentication: ClientAuthentication,
        live_tokens: LiveTokens,
        sessions: Sessions,
        refresh_tokens: RefreshTokens,
        clock: Clock,
    ) -> None:
        self._issuer, self._authentication = issuer, authentication
        self._live_tokens, self._sessions = live_tokens, sessions
        self._refresh_tokens, self._clock = refresh_tokens, clock

    async def handle(self, fields: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
        """Whether a token of the asking client is alive, and what it carries.

        Only clients that prove themselves may ask, and only about their own tokens: to anyone
        else a token is as inactive as one that never was (section 2.2).
        """
        client = await self._authentication.authenticate(fields, headers, self._clock())
        if client.auth_methods == ("none",):
            raise InvalidClient("public_clients_may_not_ask")
        token = fields.get("token")
        if token is None:
            raise InvalidRequest("no_token", "token is missing")
        if "." not in token:
            return self._of_refresh_token(await self._refreshable(token), client.client_id)
        claims = await self._live_tokens.verify(token)
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
