"""Random handles: what we give out, and the hash under which we remember it."""

import hashlib
import secrets
from collections.abc import Callable

# Makes a fresh handle of 256 bits, safe in URLs and forms.
NewHandle = Callable[[], str]


def new_handle() -> str:
    return secrets.token_urlsafe(32)


def hash_of(handle: str) -> bytes:
    """What storage keeps of a handle: enough to recognise it, useless to present."""
    return hashlib.sha256(handle.encode()).digest()
