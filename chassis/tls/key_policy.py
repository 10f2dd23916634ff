"""Which public keys are accepted, by kind and size (NIST SP 800-57: 112 bits of security)."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

MIN_RSA_BITS: Final = 2048
LEAF_CURVES: Final = frozenset({"secp256r1", "secp384r1"})
# A root of an existing PKI may have the largest curve; nobody needs it for a leaf.
CA_CURVES: Final = LEAF_CURVES | {"secp521r1"}


def is_accepted(key: object, curves: frozenset[str] = LEAF_CURVES) -> bool:
    """Whether a public key is RSA of enough bits, on one of these curves, or Ed25519."""
    match key:
        case rsa.RSAPublicKey():
            return key.key_size >= MIN_RSA_BITS
        case ec.EllipticCurvePublicKey():
            return key.curve.name in curves
    return isinstance(key, ed25519.Ed25519PublicKey)
