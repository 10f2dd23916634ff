"""The one table of signature algorithms (RFC 7518 section 3, RFC 8037, RFC 9864)."""

import base64
import hashlib
from collections.abc import Callable, Collection
from typing import Any, Final, Literal, get_args

from authserver.values import Value


class Algorithm(Value, frozen=True):
    """A JOSE `alg`, the JWK `kty` and `crv` of its keys, and its hash function.

    `curve` is None where `kty` says all. `digest` also hashes tokens for `at_hash` (OpenID
    Connect Core section 3.1.3.6); Ed25519 uses SHA-512.
    """

    name: str
    key_type: str
    curve: str | None
    digest: Callable[[bytes], Any]

    def fits(self, key_type: object, curve: object) -> bool:
        """Whether a key of this `kty` and `crv` is one for this algorithm."""
        return key_type == self.key_type and (self.curve is None or curve == self.curve)


ALGORITHMS: Final = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("ES256", "EC", "P-256", hashlib.sha256),
        Algorithm("RS256", "RSA", None, hashlib.sha256),
        Algorithm("EdDSA", "OKP", "Ed25519", hashlib.sha512),
        Algorithm("ES384", "EC", "P-384", hashlib.sha384),
        Algorithm("ES512", "EC", "P-521", hashlib.sha512),
        Algorithm("RS384", "RSA", None, hashlib.sha384),
        Algorithm("RS512", "RSA", None, hashlib.sha512),
        Algorithm("PS256", "RSA", None, hashlib.sha256),
        Algorithm("PS384", "RSA", None, hashlib.sha384),
        Algorithm("PS512", "RSA", None, hashlib.sha512),
        Algorithm("Ed25519", "OKP", "Ed25519", hashlib.sha512),
    )
}

# What we sign with, and what clients may sign their assertions with.
SigningAlgorithm = Literal["ES256", "RS256", "EdDSA"]
OURS: Final[tuple[str, ...]] = get_args(SigningAlgorithm)
# What upstreams may sign their ID tokens with.
UPSTREAMS: Final = tuple(ALGORITHMS)

# RFC 9864 gives EdDSA over this curve a name of its own; many use either for the same key.
_SAME: Final = frozenset({"EdDSA", "Ed25519"})


def at_hash(access_token: str, algorithm: str) -> str:
    """The left half of the token's hash in base64url (OpenID Connect Core section 3.1.3.6)."""
    digest = ALGORITHMS[algorithm].digest(access_token.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def usable_with(jwk: dict[str, Any], accepted: Collection[str]) -> frozenset[str]:
    """Those of the `accepted` algorithms that a public key (RFC 7517) may be used with.

    A key that has `alg` is for that one alone; any other is for all that its type allows.
    """
    fitting = {name for name in accepted if ALGORITHMS[name].fits(jwk.get("kty"), jwk.get("crv"))}
    named = jwk.get("alg")
    if named is None:
        return frozenset(fitting)
    return frozenset(fitting & (_SAME if named in _SAME else {named}))
