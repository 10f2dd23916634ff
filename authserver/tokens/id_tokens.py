"""ID tokens (OpenID Connect Core section 2): who signed in, for the client alone; no e-mail."""

import base64
import hashlib
import json
from typing import Final

from authserver.storage.records import Session
from authserver.tokens.jws import sign
from authserver.tokens.signing_keys import SigningKeys

CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash")
_TYP: Final = "JWT"
_LIFETIME: Final = 300

# The hash that belongs to a signature algorithm (section 3.1.3.6); Ed25519 uses SHA-512.
_HASHES: Final = {"ES256": hashlib.sha256, "RS256": hashlib.sha256, "EdDSA": hashlib.sha512}


class IdTokens:
    def __init__(self, issuer: str, keys: SigningKeys) -> None:
        self._issuer, self._keys = issuer, keys

    def mint(self, session: Session, access_token: str, nonce: str | None, now: int) -> str:
        """A token about the session's user, for its client, beside this very access token."""
        key = self._keys.active
        digest = _HASHES[key.algorithm](access_token.encode("ascii")).digest()
        half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
        claims: dict[str, object] = {
            "iss": self._issuer,
            "sub": session.user_id,
            "aud": session.client_id,
            "exp": now + _LIFETIME,
            "iat": now,
            "auth_time": session.signed_in_at,
            "at_hash": half,
        }
        if nonce is not None:
            claims["nonce"] = nonce
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return sign(payload, key.key, algorithm=key.algorithm, kid=key.kid, typ=_TYP)
