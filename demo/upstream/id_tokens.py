"""The fake upstream's signing key and the ID tokens it signs (OpenID Connect Core, section 2)."""

from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import ECKey

from demo.upstream.grants import Grant

LIFETIME: Final = 300

_ALGORITHM: Final = "ES256"


class IdTokens:
    """One ES256 key, made at start."""

    def __init__(self) -> None:
        self._key = ECKey.generate_key("P-256", {"use": "sig", "alg": _ALGORITHM}, auto_kid=True)

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [self._key.as_dict(private=False)]}

    def sign(self, grant: Grant, *, issuer: str, client_id: str, now: int, first: bool) -> str:
        """A token for `client_id`; the nonce is in the `first` one of a grant only (s. 12.2)."""
        claims: dict[str, Any] = {
            "iss": issuer,
            "sub": grant.user.subject,
            "aud": client_id,
            "iat": now,
            "exp": now + LIFETIME,
            **profile(grant),
        }
        if first and grant.nonce is not None:
            claims["nonce"] = grant.nonce
        header = {"alg": _ALGORITHM, "typ": "JWT", "kid": self._key.kid}
        return jwt.encode(header, claims, self._key)


def profile(grant: Grant) -> dict[str, str]:
    """The claims about the user that the granted scopes open."""
    user, scopes = grant.user, grant.scope.split()
    claims: dict[str, str] = {}
    if "profile" in scopes:
        claims |= {"name": user.name, "preferred_username": user.login}
    if "email" in scopes:
        claims |= {"email": f"{user.login}@example.com"}
    return claims
