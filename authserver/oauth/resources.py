"""The operator's map: which workload owns which resource, and what it may obtain.

A client's spelling of a resource is folded only at the edges (authorize, token); what we store,
issue and compare inside is the configured spelling, byte for byte.
"""

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from authserver.oauth.parsing import SEPARATOR
from chassis.spiffe_id import Workload

_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_NEVER_ESCAPED: Final = frozenset(string.ascii_letters + string.digits + "-._~")


class InvalidResource(ValueError):
    """The text cannot be a resource (RFC 8707 section 2)."""


@dataclass(frozen=True)
class Resource:
    """A configured resource, its only owner, and the upstreams in sign-in order."""

    url: str
    owner: Workload
    upstreams: tuple[str, ...]
    scopes: tuple[str, ...]


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


class ResourceMap:
    """All configured resources. Raises ValueError where two spell the same resource."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.replace(resources)

    def replace(self, resources: Iterable[Resource]) -> None:
        """Put another map in force, whole."""
        exact: dict[str, Resource] = {}
        folded: dict[str, Resource] = {}
        seen: set[str] = set()
        for resource in resources:
            if collision_key(resource.url) in seen:
                raise ValueError(f"{resource.url}: the same resource stands here twice")
            seen.add(collision_key(resource.url))
            exact[resource.url] = resource
            folded[canonical(resource.url)] = resource
        self._exact, self._canonical = exact, folded

    def resolve(self, text: str) -> Resource | None:
        """What a client means by `text`, in any spelling; for the edges only.

        A client may send several URIs, which `query_fields` joins (RFC 8707 section 2).
        They count where all of them mean the same resource: a token is for one.
        """
        try:
            meant = {canonical(one) for one in text.split(SEPARATOR)}
        except InvalidResource:
            return None
        return self._canonical.get(meant.pop()) if len(meant) == 1 else None

    def get(self, url: str) -> Resource | None:
        """The resource of exactly this configured spelling."""
        return self._exact.get(url)

    def owned(self) -> set[tuple[str, Workload]]:
        """Every resource and its owner."""
        return {(resource.url, resource.owner) for resource in self._exact.values()}

    def scopes(self) -> list[str]:
        return sorted({scope for resource in self._exact.values() for scope in resource.scopes})
