"""Release: a proven workload and its caller's JWT in, that user's fresh upstream token out.

The checks run in one order and stop at the first that fails: the JWT, then that its resource is
the caller's, then that the session is the token's and the caller's, then what the caller may
obtain, then freshness. A caller that is not the owner gets the same answer whatever the reason.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any, Final

from authserver.audit import Audit
from authserver.connections.refresher import TokenRefresher, margin
from authserver.internal.exchange_request import ExchangeRequest
from authserver.oauth.errors import InvalidGrant, InvalidRequest, InvalidTarget
from authserver.oauth.resources import Resource, ResourceMap
from authserver.rate_limit import RateLimit
from authserver.storage.connections import Connections, NoSuchSession
from authserver.storage.records import Connection, ConnectionKey
from authserver.tokens.access_tokens import AccessTokens, VerifiedClaims
from authserver.tokens.jws import BadToken
from chassis.clock import Clock
from chassis.spiffe_id import Workload

_MAX_CACHE_SECONDS: Final = 60


@dataclass(frozen=True)
class ReleasedToken:
    """An upstream access token on its way to its owner; seconds, None where unknown."""

    access_token: str = field(repr=False)
    expires_in: int | None
    scope: str | None
    upstream: str
    cache_ttl: int
    refreshed: bool


class SubjectTokenRejected(InvalidRequest):
    """The subject token is not acceptable to this caller (RFC 8693 section 2.2.2): one answer."""


class Exchange:
    def __init__(
        self,
        tokens: AccessTokens,
        resources: ResourceMap,
        connections: Connections,
        refresher: TokenRefresher,
        rejections: RateLimit,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._tokens, self._resources = tokens, resources
        self._connections, self._refresher = connections, refresher
        self._rejections, self._audit, self._clock = rejections, audit, clock

    async def release(
        self, caller: Workload, asked: ExchangeRequest, facts: dict[str, Any]
    ) -> ReleasedToken:
        """Raises SubjectTokenRejected to anyone but the owner, InvalidGrant, InvalidTarget and
        TemporarilyUnavailable to the owner. `facts` collects what the audit event will say.
        """
        claims = self._verified(asked.unverified_jwt)
        facts |= {"jti": self._audit.hashed(claims.jti), "session": self._audit.hashed(claims.tsid)}
        resource = self._owned(caller, claims, facts)
        upstream = _select_upstream(asked.upstream, resource)
        found = await self._connection(claims, resource, upstream)
        _check_permitted(upstream, resource)
        facts["upstream"] = upstream
        if found is None:
            raise InvalidGrant("no_connection")
        return await self._ensure_fresh(found, asked, claims, resource)

    def _verified(self, unverified_jwt: str) -> VerifiedClaims:
        try:
            return self._tokens.verify(unverified_jwt, self._clock())
        except BadToken as refused:
            raise SubjectTokenRejected(f"jwt_{refused}") from None

    def _owned(self, caller: Workload, claims: VerifiedClaims, facts: dict[str, Any]) -> Resource:
        resource = self._resources.get(claims.audience)
        if resource is None:
            raise SubjectTokenRejected("unknown_resource")
        facts["resource"] = resource.url
        # In constant time, so that an answer's time tells nothing of who the owner is.
        if not hmac.compare_digest(str(resource.owner), str(caller)):
            raise SubjectTokenRejected("caller_is_not_the_owner")
        return resource

    async def _connection(
        self, claims: VerifiedClaims, resource: Resource, upstream: str
    ) -> Connection | None:
        """The user's connection, of a session that is exactly the token's (never `tsid` alone).

        And still its owner's: a resource that has changed hands since the sign-in leaves the
        session to nobody, for the user consented to the old owner.
        """
        try:
            return await self._connections.of_session(
                claims.tsid,
                ConnectionKey(claims.subject, resource.owner, upstream),
                client_id=claims.client_id,
                resource=resource.url,
                now=self._clock(),
            )
        except NoSuchSession:
            raise SubjectTokenRejected("no_such_session_of_this_token") from None

    async def _ensure_fresh(
        self, found: Connection, asked: ExchangeRequest, claims: VerifiedClaims, resource: Resource
    ) -> ReleasedToken:
        rejected = asked.rejected_sha256 is not None and hmac.compare_digest(
            asked.rejected_sha256, _sha256(found.tokens.access_token)
        )
        if not rejected and self._refresher.usable_now(found, asked.min_ttl):
            return self._released(found, claims, refreshed=False)
        if rejected and not self._refresher.in_flight(found):
            self._rejections.take(f"{claims.tsid} {found.key.upstream}", self._clock())
        usable = await self._refresher.refresh(found, min_ttl=asked.min_ttl, rejected=rejected)
        # Time has passed in which the session may have been ended.
        await self._connection(claims, resource, found.key.upstream)
        return self._released(usable, claims, refreshed=usable.generation != found.generation)

    def _released(
        self, connection: Connection, claims: VerifiedClaims, *, refreshed: bool
    ) -> ReleasedToken:
        now, tokens = self._clock(), connection.tokens
        limits = [_MAX_CACHE_SECONDS, claims.expires_at - now]
        expires_in = None
        if tokens.expires_at is not None:
            expires_in = max(1, int(tokens.expires_at - now))
            limits.append(tokens.expires_at - now - margin(tokens))
        return ReleasedToken(
            tokens.access_token,
            expires_in,
            tokens.scope,
            connection.key.upstream,
            cache_ttl=max(0, int(min(limits))),
            refreshed=refreshed,
        )


def _select_upstream(asked: str | None, resource: Resource) -> str:
    """The upstream that is asked for; empty where it had to be named and was not."""
    if asked is None:
        return resource.upstreams[0] if len(resource.upstreams) == 1 else ""
    return asked


def _check_permitted(upstream: str, resource: Resource) -> None:
    """Whether the operator allows this resource the upstream; for its proven owner only."""
    if not upstream:
        raise InvalidRequest("upstream_not_named", "audience must name an upstream")
    if upstream not in resource.upstreams:
        raise InvalidTarget("upstream_not_permitted")


def _sha256(token: str) -> str:
    digest = hashlib.sha256(token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
