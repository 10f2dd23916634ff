"""JWTs as a forger would write them, byte for byte: no library keeps a test from a bad token."""

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | bytes | None


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def header_of(jwt: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(decoded(jwt.split(".")[0]))
    return found


def claims_of(jwt: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(decoded(jwt.split(".")[1]))
    return found


def private_key(file: Path) -> Any:
    return load_pem_private_key(file.read_bytes(), password=None)


def signed(header: bytes, payload: bytes, key: Key) -> str:
    """A compact JWS over exactly these bytes; an RSA key signs RS256, bytes HS256, None nothing."""
    text = f"{encoded(header)}.{encoded(payload)}"
    return f"{text}.{encoded(_signature(text.encode(), key))}"


def changed(members: dict[str, Any], changes: dict[str, Any]) -> bytes:
    """`members` as JSON with `changes`; a change to None leaves the member out."""
    merged = {name: value for name, value in (members | changes).items() if value is not None}
    return json.dumps(merged).encode()


def _signature(text: bytes, key: Key) -> bytes:
    match key:
        case ec.EllipticCurvePrivateKey():
            r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        case rsa.RSAPrivateKey():
            return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        case ed25519.Ed25519PrivateKey():
            return key.sign(text)
        case bytes():
            mac = hmac.HMAC(key, hashes.SHA256())
            mac.update(text)
            return mac.finalize()
        case _:
            return b""


def private_pem(key: Any) -> bytes:
    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return found
