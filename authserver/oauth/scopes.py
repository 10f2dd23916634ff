"""Scopes: the two that OpenID Connect defines, and what is granted of a request."""

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
