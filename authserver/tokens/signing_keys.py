"""Signing keys from PEM files: the first signs, every one stands in the JWKS.

A key is announced before it signs, so that everybody has it by then; then it is the first; then
it retires, and verifies only what it signed before, until the last of those tokens is over.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import ECKey, OKPKey, RSAKey
from msgspec.structs import replace

from authserver.tokens.algorithms import ALGORITHMS
from authserver.tokens.jws import AnyKey, VerificationKey
from authserver.values import Value
from chassis.tls import key_policy

# Replicas read a changed configuration at different moments; until all have, the old key signs.
_CHANGEOVER_SECONDS: Final = 300


class SigningKey(Value, frozen=True):
    """A private key, the one algorithm it signs with, and its RFC 7638 thumbprint as `kid`.

    Nothing that it signed counts while it is only `announced`, nor what it signed after
    `retired_at`.
    """

    key: AnyKey
    algorithm: str
    kid: str
    announced: bool = False
    retired_at: float | None = None


def load_signing_key(file: Path, algorithm: str) -> SigningKey:
    """Read a PKCS#8 PEM file. Raises ValueError with a text that repeats nothing of the file."""
    pem = file.read_bytes()
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise ValueError("not an unencrypted private key in PEM") from None
    key: AnyKey
    match private:
        case ec.EllipticCurvePrivateKey():
            key = ECKey.import_key(pem)
        case rsa.RSAPrivateKey():
            key = RSAKey.import_key(pem)
        case ed25519.Ed25519PrivateKey():
            key = OKPKey.import_key(pem)
        case _:
            raise ValueError(f"not a key for {algorithm}")
    jwk = key.as_dict(private=False)
    fits = ALGORITHMS[algorithm].fits(jwk["kty"], jwk.get("crv"))
    if not fits or not key_policy.is_accepted(private.public_key()):
        raise ValueError(f"not a key for {algorithm}")
    return SigningKey(key, algorithm, key.thumbprint())


class SigningKeys:
    """The keys in force."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._put(keys)

    def replace(self, keys: Sequence[SigningKey], now: float) -> bool:
        """Put other keys in force; whether the first of them was announced before.

        A key that signed until now and is no longer the first retires a moment from now, unless
        its configuration says when.
        """
        announced, before = keys[0].kid in self._all, self.active.kid
        followers = [self._retiring(key, before, now) for key in keys[1:]]
        self._put([keys[0], *followers])
        return announced

    def _retiring(self, key: SigningKey, before: str, now: float) -> SigningKey:
        if key.announced or key.retired_at is not None:
            return key
        if key.kid == before:
            return replace(key, retired_at=now + _CHANGEOVER_SECONDS)
        known = self._states.get(key.kid)
        return replace(key, retired_at=known.retired_at if known else None)

    def _put(self, keys: Sequence[SigningKey]) -> None:
        if not keys:
            raise ValueError("no signing key")
        self.active = keys[0]
        self._states = {key.kid: key for key in keys}
        self._all = {key.kid: VerificationKey(key.key, frozenset({key.algorithm})) for key in keys}
        self._jwks = {"keys": [_public(key) for key in keys]}

    def could_have_signed(self, kid: str | None, issued_at: float) -> bool:
        """Whether the key could have signed a token of ours at that time."""
        state = self._states.get(kid) if kid is not None else None
        if state is None or state.announced:
            return False
        return state.retired_at is None or issued_at <= state.retired_at

    def find(self, kid: str | None) -> VerificationKey | None:
        """A key by its `kid`; a token without one names no key."""
        return self._all.get(kid) if kid is not None else None

    def jwks(self) -> dict[str, Any]:
        """The JWK Set (RFC 7517), public members only."""
        return self._jwks

    def algorithms(self) -> list[str]:
        return sorted({key.algorithm for key in self._states.values()})


def _public(key: SigningKey) -> dict[str, Any]:
    members = key.key.as_dict(private=False)
    return members | {"kid": key.kid, "use": "sig", "alg": key.algorithm}
