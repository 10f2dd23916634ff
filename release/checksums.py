"""SHA-256 sums of a release's files, and an Ed25519 signature over them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key


class UnfitSigningKey(Exception):
    """The key is not an Ed25519 private key in PEM without a password."""


def write_checksums(files: Iterable[Path], folder: Path) -> Path:
    """Write `SHA256SUMS`, in the format that `sha256sum --check` reads."""
    lines = (f"{_sha256(file)}  {file.name}\n" for file in sorted(files, key=lambda f: f.name))
    path = folder / "SHA256SUMS"
    path.write_text("".join(lines), "ascii")
    return path


def sign(checksums: Path, pem: str) -> Path:
    """Write `SHA256SUMS.sig`, 64 raw bytes; `openssl pkeyutl -verify -rawin` checks it.

    Raises UnfitSigningKey, which says nothing of the key.
    """
    path = checksums.with_name(checksums.name + ".sig")
    path.write_bytes(_signing_key(pem).sign(checksums.read_bytes()))
    return path


def _signing_key(pem: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        raise UnfitSigningKey("not an unencrypted private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UnfitSigningKey("not an Ed25519 key")
    return key


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
