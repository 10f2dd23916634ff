"""Scopes: the two that OpenID Connect defines, and what is granted of a request."""

from typing import Final

from authserver.oauth.resources import Resource

OFFLINE_ACCESS: Final = "offline_access"
OPENID: Final = "openid"


def granted_scope(asked: str | None, resource: Resource) -> str:
    """What is granted of what was asked: unknown scopes are dropped, not refused.

    A request without a scope gets all scopes of the resource (RFC 6749 section 3.3).
    """
    if asked is None:
        return " ".join(resource.scopes)
    grantable = (*resource.scopes, OFFLINE_ACCESS, OPENID)
    return " ".join(dict.fromkeys(scope for scope in asked.split(" ") if scope in grantable))
