"""Keys as strangers publish them: one that is not for such signatures verifies nothing."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

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
        (PUBLIC | {"alg": "RS256"}, "wrong_algorithm"),
        (PUBLIC | {"key_ops": ["sign"]}, "bad_signature"),
        (ECKey.generate_key("P-384").as_dict(private=False) | {"kid": "k", "alg": "ES256"},
         "bad_signature"),
        (RSAKey.generate_key(2048).as_dict(private=False) | {"kid": "k", "alg": "ES256"},
         "bad_signature"),
        (OKPKey.generate_key("Ed25519").as_dict(private=False) | {"kid": "k", "alg": "ES256"},
         "bad_signature"),
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
