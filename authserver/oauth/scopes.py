"""Scopes: the two of OpenID Connect, what is granted of a request, and those of upstreams."""

from typing import Final

from authserver.oauth.resources import Resource

OFFLINE_ACCESS: Final = "offline_access"
OPENID: Final = "openid"


def granted_scope(requested: str | None, resource: Resource) -> str:
    """What is granted of what was asked: unknown scopes are dropped, not refused.

    A request without a scope gets all scopes of the resource (RFC 6749 section 3.3).
    """
    if requested is None:
        return " ".join(resource.scopes)
    grantable = (*resource.scopes, OFFLINE_ACCESS, OPENID)
    return " ".join(dict.fromkeys(scope for scope in requested.split(" ") if scope in grantable))


def upstream_scope(upstream: str, scope: str) -> str:
    """How a client asks us for a scope of an upstream: `github/repo`.

    Both texts are of the grammar of RFC 6749 section 3.3, so only the percent sign is escaped.
    """
    return f"{upstream}/{scope.replace('%', '%25')}"
