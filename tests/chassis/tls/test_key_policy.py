"""Keys are accepted by kind and size, for leaves and for CAs."""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from chassis.tls.key_policy import CA_CURVES, is_accepted


@pytest.mark.parametrize(
    ("new_key", "leaf", "ca"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), True, True),
        (lambda: rsa.generate_private_key(65537, 1024), False, False),
        (lambda: ec.generate_private_key(ec.SECP256R1()), True, True),
        (lambda: ec.generate_private_key(ec.SECP384R1()), True, True),
        (lambda: ec.generate_private_key(ec.SECP521R1()), False, True),
        (lambda: ec.generate_private_key(ec.SECP256K1()), False, False),
        (lambda: ec.generate_private_key(ec.SECP224R1()), False, False),
        (ed25519.Ed25519PrivateKey.generate, True, True),
        (ed448.Ed448PrivateKey.generate, False, False),
        (lambda: dsa.generate_private_key(2048), False, False),
    ],
)
def test_a_key_is_accepted_by_its_kind_and_size(
    new_key: Callable[[], Any], leaf: bool, ca: bool
) -> None:
    public = new_key().public_key()
    assert is_accepted(public) is leaf
    assert is_accepted(public, CA_CURVES) is ca
