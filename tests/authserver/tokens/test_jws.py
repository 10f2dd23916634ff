"""Keys as strangers publish them: one that is not for such signatures verifies nothing."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from authserver.tokens import jws as ours
from authserver.tokens.algorithms import OURS, UPSTREAMS
from authserver.tokens.jws import BadToken, verify
from authserver.upstream.jwks import verification_keys

PAYLOAD = b'{"sub": "alice"}'


def signed(key: ECKey | RSAKey | OKPKey, algorithm: str) -> str:
    header = {"alg": algorithm, "kid": "k"}
    return jws.serialize_compact(header, PAYLOAD, key, algorithms=["ES256", "RS256", "EdDSA"])


def verified(token: str, published: dict[str, Any]) -> dict[str, Any]:
    return verify(token, verification_keys([published]).get, types=frozenset({None})).payload


P256 = ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))
PUBLIC = {**P256.as_dict(private=False), "kid": "k"}


def test_a_published_key_verifies_what_its_owner_signed() -> None:
    assert verified(signed(P256, "ES256"), PUBLIC) == {"sub": "alice"}
    assert verified(signed(P256, "ES256"), PUBLIC | {"use": "sig", "alg": "ES256"})


@pytest.mark.parametrize(
    ("published", "reason"),
    [
        (PUBLIC | {"use": "enc"}, "unknown_kid"),
        (PUBLIC | {"alg": "ES512"}, "unknown_kid"),
        (PUBLIC | {"alg": "RS256"}, "unknown_kid"),
        (PUBLIC | {"key_ops": ["sign"]}, "bad_signature"),
        (ECKey.generate_key("P-384").as_dict(private=False) | {"kid": "k", "alg": "ES256"},
         "unknown_kid"),
        (RSAKey.generate_key(2048).as_dict(private=False) | {"kid": "k", "alg": "ES256"},
         "unknown_kid"),
        (OKPKey.generate_key("Ed25519").as_dict(private=False) | {"kid": "k", "alg": "ES256"},
         "unknown_kid"),
        (ECKey.generate_key("P-256").as_dict(private=False) | {"kid": "k"}, "bad_signature"),
        (PUBLIC | {"kid": "other"}, "unknown_kid"),
    ],
    ids=["for encryption", "of another algorithm", "said to be RSA", "for signing only",
         "of another curve", "in truth RSA", "in truth Ed25519", "of somebody else",
         "of another name"],
)  # fmt: skip
def test_a_key_that_is_for_something_else_verifies_nothing(
    published: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadToken) as refused:
        verified(signed(P256, "ES256"), published)
    assert str(refused.value) == reason


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("added", ["=", " ", "\n", "!", "+", "/", "A", "é"])
def test_a_part_that_is_no_base64url_is_refused(part: int, added: str) -> None:
    parts = signed(P256, "ES256").split(".")
    # A length of 1 over a multiple of 4 stands for nothing.
    parts[part] += "A" * (-len(parts[part]) % 4) + added if added == "A" else added
    with pytest.raises(BadToken):
        verified(".".join(parts), PUBLIC)


RSA = RSAKey.generate_key(2048)
EVERY_KIND: dict[str, ECKey | RSAKey | OKPKey] = {
    "ES256": P256,
    "ES384": ECKey.generate_key("P-384"),
    "ES512": ECKey.generate_key("P-521"),
    "Ed25519": OKPKey.generate_key("Ed25519"),
    "EdDSA": OKPKey.generate_key("Ed25519"),
    **{f"{family}{bits}": RSA for family in ("RS", "PS") for bits in (256, 384, 512)},
}


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc, about the name alone
@pytest.mark.parametrize("algorithm", UPSTREAMS)
@pytest.mark.parametrize("says_alg", [True, False])
def test_every_algorithm_of_the_table_is_verified_where_it_is_accepted(
    algorithm: str, says_alg: bool
) -> None:
    key = EVERY_KIND[algorithm]
    token = jws.serialize_compact(
        {"alg": algorithm, "kid": "k"}, PAYLOAD, key, algorithms=[algorithm]
    )
    published = key.as_dict(private=False) | {"kid": "k"} | ({"alg": algorithm} if says_alg else {})
    find = verification_keys([published], UPSTREAMS).get
    signed_jws = verify(token, find, types=frozenset({None}))
    assert (signed_jws.payload, signed_jws.algorithm) == ({"sub": "alice"}, algorithm)
    if algorithm not in OURS:
        with pytest.raises(BadToken):
            verified(token, published)


def test_a_key_is_for_the_one_algorithm_that_it_names() -> None:
    key = EVERY_KIND["RS256"]
    token = jws.serialize_compact({"alg": "PS256", "kid": "k"}, PAYLOAD, key, algorithms=["PS256"])
    published = key.as_dict(private=False) | {"kid": "k", "alg": "RS256"}
    with pytest.raises(BadToken, match="wrong_algorithm"):
        verify(token, verification_keys([published], UPSTREAMS).get, types=frozenset({None}))


@pytest.mark.parametrize("alg", [["ES256"], {}, None, 5])
def test_an_algorithm_that_is_no_name_is_refused(alg: Any) -> None:
    header, payload, signature = signed(P256, "ES256").split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": alg, "kid": "k"}).encode()).decode()
    with pytest.raises(BadToken, match="wrong_algorithm"):
        verified(f"{header.rstrip('=')}.{payload}.{signature}", PUBLIC)


def test_only_a_short_header_is_remembered_and_nobody_can_change_it() -> None:
    """Else strangers could have megabytes kept, for nobody has verified a header that is read."""
    ours._short_header.cache_clear()
    for longer in ("", "x" * 300):
        header = {"alg": "ES256", "kid": "k", "cty": longer}
        token = jws.serialize_compact(header, PAYLOAD, P256, algorithms=["ES256"])
        assert verified(token, PUBLIC)
    assert ours._short_header.cache_info().currsize == 1
    remembered: Any = ours._short_header(signed(P256, "ES256").partition(".")[0])
    with pytest.raises(TypeError):
        remembered["alg"] = "none"
