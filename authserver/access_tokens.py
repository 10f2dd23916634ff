"""Our access tokens: JWTs of RFC 9068 with one audience and the session's public handle."""

import json
from dataclasses import dataclass
from typing import Any, Final

from authserver.jose import BadToken, sign, verify
from authserver.keys import SigningKeys
from authserver.parsing import Malformed, short_text, whole_number
from authserver.storage.records import Session

_TYP: Final = "at+jwt"
_LEEWAY: Final = 5
_LONGEST_LIFE: Final = 24 * 3600


@dataclass(frozen=True)
class VerifiedClaims:
    """The claims of a token we signed, whose times are right now."""

    subject: str
    audience: str
    client_id: str
    tsid: str
    jti: str
    scope: str
    issued_at: int
    not_before: int
    expires_at: int


class AccessTokens:
    """Mints and verifies access tokens of one issuer."""

    def __init__(self, issuer: str, keys: SigningKeys, lifetime: int) -> None:
        self._issuer, self._keys, self.lifetime = issuer, keys, lifetime

    def mint(self, session: Session, *, jti: str, now: int) -> str:
        """A token for a session, valid for `lifetime` seconds from `now`; no name, no e-mail."""
        claims = {
            "iss": self._issuer,
            "sub": session.user_id,
            "aud": session.resource,
            "exp": now + self.lifetime,
            "iat": now,
            "nbf": now,
            "jti": jti,
            "client_id": session.client_id,
            "scope": session.scope,
            "tsid": session.tsid,
        }
        key = self._keys.active
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return sign(payload, key.key, algorithm=key.algorithm, kid=key.kid, typ=_TYP)

    def verify(self, unverified_jwt: str, now: float) -> VerifiedClaims:
        """The claims of a token of ours that is valid at `now`. Raises BadToken with a reason."""
        claims = verify(unverified_jwt, self._keys.find, types=frozenset({_TYP})).payload
        if claims.get("iss") != self._issuer:
            raise BadToken("wrong_issuer")
        try:
            verified = _read(claims)
        except Malformed:
            raise BadToken("bad_claims") from None
        _check_times(verified, now)
        return verified


def _read(claims: dict[str, Any]) -> VerifiedClaims:
    scope = claims.get("scope")
    if not isinstance(scope, str):
        raise Malformed("scope is not a text")
    return VerifiedClaims(
        subject=short_text(claims, "sub"),
        audience=short_text(claims, "aud", 2048),
        client_id=short_text(claims, "client_id", 2048),
        tsid=short_text(claims, "tsid"),
        jti=short_text(claims, "jti"),
        scope=scope,
        issued_at=whole_number(claims, "iat"),
        not_before=whole_number(claims, "nbf"),
        expires_at=whole_number(claims, "exp"),
    )


def _check_times(claims: VerifiedClaims, now: float) -> None:
    if now >= claims.expires_at + _LEEWAY:
        raise BadToken("expired")
    if max(claims.issued_at, claims.not_before) > now + _LEEWAY:
        raise BadToken("not_yet_valid")
    if not 0 < claims.expires_at - claims.issued_at <= _LONGEST_LIFE:
        raise BadToken("lifetime_too_long")
