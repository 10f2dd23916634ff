"""Signing keys from PEM files: the first signs, every one verifies and stands in the JWKS."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import ECKey, OKPKey, RSAKey

from authserver.jose import AnyKey, VerificationKey

_SMALLEST_RSA: Final = 2048


@dataclass(frozen=True)
class SigningKey:
    """A private key, the one algorithm it signs with, and its RFC 7638 thumbprint as `kid`."""

    key: AnyKey
    algorithm: str
    kid: str


def load_signing_key(file: Path, algorithm: str) -> SigningKey:
    """Read a PKCS#8 PEM file. Raises ValueError with a text that repeats nothing of the file."""
    try:
        private = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise ValueError("not an unencrypted private key in PEM") from None
    key: AnyKey
    match algorithm, private:
        case "ES256", ec.EllipticCurvePrivateKey() if private.curve.name == "secp256r1":
            key = ECKey.import_key(file.read_bytes())
        case "RS256", rsa.RSAPrivateKey() if private.key_size >= _SMALLEST_RSA:
            key = RSAKey.import_key(file.read_bytes())
        case "EdDSA", ed25519.Ed25519PrivateKey():
            key = OKPKey.import_key(file.read_bytes())
        case _:
            raise ValueError(f"not a key for {algorithm}")
    return SigningKey(key, algorithm, key.thumbprint())


class SigningKeys:
    """The keys in force."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        if not keys:
            raise ValueError("no signing key")
        self.active = keys[0]
        self._all = {key.kid: VerificationKey(key.key, key.algorithm) for key in keys}
        self._jwks = {"keys": [_public(key) for key in keys]}

    def find(self, kid: str | None) -> VerificationKey | None:
        """A key by its `kid`; a token without one names no key."""
        return self._all.get(kid) if kid is not None else None

    def jwks(self) -> dict[str, Any]:
        """The JWK Set (RFC 7517), public members only."""
        return self._jwks

    def algorithms(self) -> list[str]:
        return sorted({key.algorithm for key in self._all.values()})


def _public(key: SigningKey) -> dict[str, Any]:
    members = key.key.as_dict(private=False)
    return members | {"kid": key.kid, "use": "sig", "alg": key.algorithm}
