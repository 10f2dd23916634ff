"""The one place that touches joserfc: sign, and verify with every check it leaves to us.

joserfc ignores `typ`, tolerates `jwk` and `jku` in an honestly signed token and decodes without
looking at claims. `verify` refuses the first three; reading the claims is the caller's part,
and what it gets back is only ever the payload of a verified signature.
"""

import base64
import binascii
import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from authserver.oauth.parsing import Malformed, json_object
from authserver.tokens.algorithms import ALGORITHMS
from authserver.values import Value

AnyKey = ECKey | RSAKey | OKPKey

MAX_TOKEN: Final = 8192
_SHORT_HEADER: Final = 256
# Three times base64url without padding (RFC 7515 sections 2 and 7.1).
_COMPACT: Final = re.compile(r"[\w-]+\.[\w-]*\.[\w-]*", re.ASCII)

# Each of them lets the sender choose the key, or says that the payload is not what it seems.
_FORBIDDEN_HEADERS: Final = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "b64", "zip"})
# Where keys come from elsewhere, these hints may be there and are not looked at (RFC 7515 4).
KEY_HINTS: Final = frozenset({"jku", "x5u", "x5c"})


class _Registry(jws.JWSRegistry):
    def get_alg(self, name: str) -> Any:
        """RFC 9864 renames EdDSA; providers go on using that name, and it is no weaker for it."""
        if name != "EdDSA":
            return super().get_alg(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            return super().get_alg(name)


# Our own header check is stricter than the registry's, which knows no exact set.
_REGISTRY: Final = _Registry(algorithms=list(ALGORITHMS), strict_check_header=False)


class BadToken(Exception):
    """A token is not acceptable; the text is a reason code for the log."""


class VerifiedJws(Value, frozen=True):
    """What a verified signature covers, the key that verified it, and the algorithm used."""

    kid: str | None
    key: "VerificationKey"
    algorithm: str
    payload: dict[str, Any]


class VerificationKey(Value, frozen=True):
    """A public key and the algorithms it may be used with, by their JOSE names."""

    key: AnyKey
    algorithms: frozenset[str]


def sign(claims: bytes, key: AnyKey, *, algorithm: str, kid: str, typ: str) -> str:
    """A compact JWS over `claims`."""
    header = {"alg": algorithm, "kid": kid, "typ": typ}
    return jws.serialize_compact(header, claims, key, registry=_REGISTRY)


def verify(
    token: str,
    find_key: Callable[[str | None], VerificationKey | None],
    *,
    types: frozenset[str | None],
    before_signature: Callable[[dict[str, Any]], None] | None = None,
    ignored_headers: frozenset[str] = frozenset(),
) -> VerifiedJws:
    """The content of a compact JWS whose signature, algorithm, key and `typ` are acceptable.

    `find_key` maps `kid` to a key or None; `types` holds the accepted `typ`, in lower case, None
    where it may be absent. `before_signature` gets the unverified claims once the header is
    acceptable, and refuses by raising: a signature costs far more than everything before it.
    Raises BadToken, and what `before_signature` raises.
    """
    parts = _parts(token)
    header = _header(parts[0])
    if not (_FORBIDDEN_HEADERS - ignored_headers).isdisjoint(header):
        raise BadToken("forbidden_header")
    typ, kid, algorithm = header.get("typ"), header.get("kid"), header.get("alg")
    if typ is not None and not isinstance(typ, str):
        raise BadToken("wrong_typ")
    if (typ.lower() if typ is not None else None) not in types:
        raise BadToken("wrong_typ")
    if kid is not None and not isinstance(kid, str):
        raise BadToken("unknown_kid")
    key = find_key(kid)
    if key is None:
        raise BadToken("unknown_kid")
    if not isinstance(algorithm, str) or algorithm not in key.algorithms:
        raise BadToken("wrong_algorithm")
    claims = None
    if before_signature is not None:
        claims = _object(parts[1], "payload_not_json")
        before_signature(claims)
    if not _signature_valid(token, key.key, algorithm):
        raise BadToken("bad_signature")
    if claims is None:
        claims = _object(parts[1], "payload_not_json")
    return VerifiedJws(kid, key, algorithm, claims)


def _signature_valid(token: str, key: AnyKey, name: str) -> bool:
    """Whether the signature is this key's, which has to be one for signatures of this kind.

    joserfc's reading of a whole token would decode header and payload once more, less strictly.
    """
    signed, _, signature = token.rpartition(".")
    algorithm = _REGISTRY.get_alg(name)
    try:
        algorithm.check_key(key)
        return bool(algorithm.verify(signed.encode(), _decoded(signature), key))
    except (JoseError, ValueError):
        return False


def unverified_kid(token: str) -> str | None:
    """The key a token claims to be signed with, for fetching keys and nothing else."""
    kid = _header(_parts(token)[0]).get("kid")
    return kid if isinstance(kid, str) else None


def unverified_claims(token: str) -> dict[str, Any]:
    """What a token says, where something else vouches for it, or to find out whose keys do."""
    return _object(_parts(token)[1])


def _parts(token: str) -> list[str]:
    """Header, payload and signature of a compact JWS. Raises BadToken."""
    if len(token) > MAX_TOKEN or _COMPACT.fullmatch(token) is None:
        raise BadToken("not_a_compact_jws")
    return token.split(".")


def _header(part: str) -> Mapping[str, Any]:
    """Tokens that one key signs have one header: a short one is read once. Raises BadToken."""
    return _short_header(part) if len(part) <= _SHORT_HEADER else _object(part)


@lru_cache(maxsize=64)
def _short_header(part: str) -> Mapping[str, Any]:
    return MappingProxyType(_object(part))


def _object(part: str, otherwise: str = "not_a_compact_jws") -> dict[str, Any]:
    """The JSON object in one part of a compact JWS. Raises BadToken."""
    try:
        return json_object(_decoded(part))
    except (binascii.Error, Malformed):
        raise BadToken(otherwise) from None


def _decoded(part: str) -> bytes:
    """What a part of a compact JWS stands for. Raises binascii.Error."""
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
