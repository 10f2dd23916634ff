"""Scopes: the two of OpenID Connect, what is granted of a request, and those of upstreams."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from authserver.oauth.resources import Resource

OFFLINE_ACCESS: Final = "offline_access"
OPENID: Final = "openid"


def granted_scope(requested: str | None, resource: Resource) -> str:
    """What is granted of what was asked: unknown scopes are dropped, not refused.

    A request without a scope gets all scopes of the resource (RFC 6749 section 3.3). What the
    resource requires is granted in any case: clients go on asking for what they once learned of
    its scopes, and a token without those is good for nothing. The consent page names them.
    """
    if requested is None:
        return " ".join(resource.scopes)
    grantable = (*resource.scopes, OFFLINE_ACCESS, OPENID)
    wanted = [scope for scope in requested.split(" ") if scope in grantable]
    return " ".join(dict.fromkeys([*wanted, *resource.required_scopes]))


def upstream_scope(upstream: str, scope: str) -> str:
    """How a client asks us for a scope of an upstream: `github/repo`.

    Both texts are of the grammar of RFC 6749 section 3.3, so only the percent sign is escaped.
    """
    return f"{upstream}/{scope.replace('%', '%25')}"


def requested_upstream_scopes(
    requested: str | None, permitted: Mapping[str, Collection[str]]
) -> tuple[tuple[str, str], ...]:
    """Which scopes of which upstreams a client asks for, once each, among those permitted.

    Others are dropped like every unknown scope. None of them is ever granted at our server: they
    go to the upstream, and not into a token of ours.
    """
    named = dict.fromkeys((requested or "").split(" "))
    return tuple(
        (upstream, scope)
        for upstream, scopes in permitted.items()
        for scope in dict.fromkeys(scopes)
        if upstream_scope(upstream, scope) in named
    )


def of_upstream(upstream: str, scopes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Those of one upstream."""
    return tuple(scope for name, scope in scopes if name == upstream)
