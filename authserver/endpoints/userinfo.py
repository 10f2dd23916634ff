"""What a token says of its user (OpenID Connect Core section 5.3)."""

from typing import Any

from authserver.endpoints.live_tokens import LiveTokens
from authserver.oauth.errors import InsufficientScope, InvalidToken
from authserver.oauth.scopes import OPENID


class Userinfo:
    """GET and POST /oauth/userinfo."""

    def __init__(self, live_tokens: LiveTokens) -> None:
        self._live_tokens = live_tokens

    async def handle(self, authorization: str | None) -> dict[str, Any]:
        """The user of a token with the scope `openid`: the subject and nothing more.

        Raises InvalidToken or InsufficientScope.
        """
        scheme, _, unverified = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not unverified:
            raise InvalidToken("no_bearer_token")
        claims = await self._live_tokens.verify(unverified)
        if claims is None:
            raise InvalidToken("token_not_acceptable")
        if OPENID not in claims.scope.split():
            raise InsufficientScope("openid_not_granted")
        return {"sub": claims.subject}
