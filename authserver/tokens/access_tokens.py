"""Our access tokens: JWTs of RFC 9068 with one audience and the session's public handle."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from authserver.oauth.parsing import Malformed, short_text, whole_number
from authserver.storage.records import Session
from authserver.tokens.jws import BadToken, VerificationKey, sign, verify
from authserver.tokens.signing_keys import SigningKeys
from authserver.values import Value

_TYP: Final = "at+jwt"
_TYPES: Final = frozenset({_TYP})
_LEEWAY: Final = 5
_MAX_LIFE_SECONDS: Final = 24 * 3600
_MAX_KNOWN: Final = 10_000
MAX_AUDIENCE: Final = 2048


class VerifiedClaims(Value, frozen=True):
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


class _Known(NamedTuple):
    """A token whose signature was verified before, and by which key."""

    claims: VerifiedClaims
    kid: str | None
    key: VerificationKey


class AccessTokens:
    """Mints and verifies access tokens of one issuer."""

    def __init__(self, issuer: str, keys: SigningKeys, lifetime: int) -> None:
        self._issuer, self._keys, self.lifetime = issuer, keys, lifetime
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

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

    def verify(
        self,
        unverified_jwt: str,
        now: float,
        *,
        before_signature: Callable[[dict[str, Any]], None] | None = None,
    ) -> VerifiedClaims:
        """The claims of a token of ours that is valid at `now`. Raises BadToken with a reason.

        A signature is verified once; the same token again is known by its hash for as long as
        its key is one of ours. Its times are looked at every time. `before_signature` gets the
        unverified claims of a token that is not known yet, and refuses by raising.
        """
        digest = hashlib.sha256(unverified_jwt.encode("utf-8", "surrogateescape")).digest()
        known = self._known.get(digest)
        if known is None or self._keys.find(known.kid) is not known.key:
            known = self._verified(unverified_jwt, before_signature)
            self._known[digest] = known
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        _check_times(known.claims, now)
        if not self._keys.could_have_signed(known.kid, known.claims.issued_at):
            raise BadToken("key_did_not_sign_then")
        return known.claims

    def _verified(
        self, unverified_jwt: str, before_signature: Callable[[dict[str, Any]], None] | None
    ) -> _Known:
        signed = verify(
            unverified_jwt, self._keys.find, types=_TYPES, before_signature=before_signature
        )
        if signed.payload.get("iss") != self._issuer:
            raise BadToken("wrong_issuer")
        try:
            return _Known(_read(signed.payload), signed.kid, signed.key)
        except Malformed:
            raise BadToken("bad_claims") from None


def _read(claims: dict[str, Any]) -> VerifiedClaims:
    scope = claims.get("scope")
    if not isinstance(scope, str):
        raise Malformed("scope is not a text")
    return VerifiedClaims(
        subject=short_text(claims, "sub"),
        audience=short_text(claims, "aud", MAX_AUDIENCE),
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
    if not 0 < claims.expires_at - claims.issued_at <= _MAX_LIFE_SECONDS:
        raise BadToken("lifetime_too_long")
