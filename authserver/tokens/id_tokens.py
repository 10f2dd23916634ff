"""ID tokens (OpenID Connect Core section 2): who signed in, for the client alone; no e-mail."""

import json
from typing import Final

from authserver.storage.records import Session
from authserver.tokens.algorithms import at_hash
from authserver.tokens.jws import sign
from authserver.tokens.signing_keys import SigningKeys

CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash")
_TYP: Final = "JWT"
_LIFETIME: Final = 300


class IdTokens:
    def __init__(self, issuer: str, keys: SigningKeys) -> None:
        self._issuer, self._keys = issuer, keys

    def mint(self, session: Session, access_token: str, nonce: str | None, now: int) -> str:
        """A token about the session's user, for its client, beside this very access token."""
        key = self._keys.active
        claims: dict[str, object] = {
            "iss": self._issuer,
            "sub": session.user_id,
            "aud": session.client_id,
            "exp": now + _LIFETIME,
            "iat": now,
            "auth_time": session.signed_in_at,
            "at_hash": at_hash(access_token, key.algorithm),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return sign(payload, key.key, algorithm=key.algorithm, kid=key.kid, typ=_TYP)
