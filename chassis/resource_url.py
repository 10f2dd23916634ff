"""The spellings of a resource (RFC 8707): which texts are one, and which mean the same URL."""

import re
import string
from typing import Final
from urllib.parse import urlsplit

_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_NEVER_ESCAPED: Final = frozenset(string.ascii_letters + string.digits + "-._~")


class InvalidResource(ValueError):
    """The text cannot be a resource (RFC 8707 section 2)."""


def canonical(text: str) -> str:
    """The one spelling of equal resources: case of scheme and host, default port, final slash.

    Raises InvalidResource for what is no absolute http(s) URL, or has a fragment or userinfo.
    """
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise InvalidResource("not a URL")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InvalidResource("not a URL") from None
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in ("http", "https") or not host:
        raise InvalidResource("not an absolute http or https URL")
    if "#" in text or "@" in parts.netloc:
        raise InvalidResource("has a fragment or user information")
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}[scheme]
    authority = host if port in (None, default) else f"{host}:{port}"
    path = parts.path or "/"
    if path != "/" and path.endswith("/"):
        path = path[:-1]
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{authority}{path}{query}"


def collision_key(text: str) -> str:
    """What resources have in common that somebody could take for one another.

    Beyond their canonical spelling, that is percent escapes (RFC 3986 section 6.2.2); for telling
    conflicts in the map and nothing else. Raises InvalidResource.
    """
    return _ESCAPE.sub(_unescaped, canonical(text))


def _unescaped(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _NEVER_ESCAPED else escape[0].upper()
