"""Envelope encryption of what must not be readable in a stolen database.

Every sealed value has a fresh random data key, wrapped by a key-encryption key from a file.
Both layers authenticate where the value belongs (table, column, identifiers, generation), so a
value moved to another row, rolled back or altered does not open. AES-256-GCM throughout
(NIST SP 800-38D); a data key encrypts once, a key-encryption key wraps with random nonces.

    0x01 | key id length | key id | wrap nonce 12 | wrapped data key 48 | nonce 12 | ciphertext
"""

import base64
import binascii
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION: Final = 1
_NONCE: Final = 12
_KEY: Final = 32
_TAG: Final = 16
_WRAPPED: Final = _KEY + _TAG

_length: Final = struct.Struct(">I").pack
_MIDDLE: Final = struct.Struct(f"{_NONCE}s{_WRAPPED}s{_NONCE}s")


class DecryptionFailed(Exception):
    """A sealed value does not open: altered, moved, or sealed under a key we do not hold."""


def read_key(text: str) -> bytes:
    """A key file's content: 32 random bytes in base64 on one line. Raises ValueError."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if len(key) != _KEY:
        raise ValueError(f"holds {len(key)} bytes, not {_KEY}")
    return key


class Keyring:
    """The key-encryption keys: the first seals, all open."""

    def __init__(
        self, keys: Sequence[tuple[str, bytes]], random: Callable[[int], bytes] = os.urandom
    ) -> None:
        if not keys:
            raise ValueError("no encryption key")
        self._keys = {key_id.encode(): AESGCM(key) for key_id, key in keys}
        self._sealing_id = keys[0][0]
        self._fingerprints = {key_id: _derive(key, b"tokenward key check") for key_id, key in keys}
        self._random = random
        self._epoch = 0

    def replace(self, other: "Keyring") -> None:
        """Hold the keys of `other` from now on."""
        epoch = self._epoch + 1
        vars(self).update(vars(other))
        self._epoch = epoch

    @property
    def epoch(self) -> int:
        """How often the keys were replaced: what was opened in another epoch may not open now."""
        return self._epoch

    @property
    def sealing_id(self) -> str:
        """The id of the key that seals."""
        return self._sealing_id

    @property
    def fingerprints(self) -> Mapping[str, bytes]:
        """By id, what tells one key from another and gives nothing away of it."""
        return self._fingerprints

    def seal(self, plaintext: bytes, *belongs_to: str | int) -> bytes:
        """Encrypt `plaintext`; it opens only with the same `belongs_to`, part for part."""
        key_id = self._sealing_id.encode()
        data_key = self._random(_KEY)
        wrap_nonce, nonce = self._random(_NONCE), self._random(_NONCE)
        place = _associated_data(key_id, belongs_to)
        wrapped = self._keys[key_id].encrypt(wrap_nonce, data_key, b"key" + place)
        ciphertext = AESGCM(data_key).encrypt(nonce, plaintext, b"value" + place)
        head = bytes((_VERSION, len(key_id))) + key_id
        return head + wrap_nonce + wrapped + nonce + ciphertext

    def open(self, sealed: bytes, *belongs_to: str | int) -> bytes:
        """Decrypt what `seal` made for exactly this place. Raises DecryptionFailed."""
        key_id, wrap_nonce, wrapped, nonce, ciphertext = _split(sealed)
        wrapping = self._keys.get(key_id)
        if wrapping is None:
            raise DecryptionFailed("sealed under a key that is not configured")
        place = _associated_data(key_id, belongs_to)
        try:
            data_key = wrapping.decrypt(wrap_nonce, wrapped, b"key" + place)
            return AESGCM(data_key).decrypt(nonce, ciphertext, b"value" + place)
        except InvalidTag:
            raise DecryptionFailed("altered, or not from this row") from None


def key_id_of(sealed: bytes) -> str:
    """The id of the key-encryption key a sealed value names; not authenticated by itself."""
    return sealed[2 : 2 + sealed[1]].decode()


def _split(sealed: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    if len(sealed) < 2 or sealed[0] != _VERSION:
        raise DecryptionFailed("not a sealed value of a version we know")
    middle = 2 + sealed[1]
    ciphertext = middle + _MIDDLE.size
    if len(sealed) < ciphertext + _TAG:
        raise DecryptionFailed("cut short")
    wrap_nonce, wrapped, nonce = _MIDDLE.unpack_from(sealed, middle)
    return sealed[2:middle], wrap_nonce, wrapped, nonce, sealed[ciphertext:]


def _associated_data(key_id: bytes, belongs_to: Sequence[str | int]) -> bytes:
    """The authenticated place, each part with its length: `a|b` must not equal `a`, `b`."""
    place = [_length(1), bytes((_VERSION,)), _length(len(key_id)), key_id]
    for part in belongs_to:
        encoded = str(part).encode()
        place += (_length(len(encoded)), encoded)
    return b"".join(place)


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose).derive(key)
