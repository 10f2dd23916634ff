"""Release: a proven workload and its caller's JWT in, that user's fresh upstream token out.

The checks run in one order and stop at the first that fails: the JWT and that its resource is the
caller's (`subject_tokens`), then that the session is the token's and the caller's, then what the
caller may obtain, then freshness. A caller that is not the owner gets the same answer whatever the
reason.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, cast

from authserver.connections.connect_links import ConnectLinks
from authserver.connections.freshness import margin
from authserver.connections.refresher import TokenRefresher
from authserver.internal.denial_reasons import DenialReason
from authserver.internal.exchange_request import ExchangeRequest
from authserver.internal.exchanged_release import ExchangedRelease, ExchangeMeant, meant
from authserver.internal.scope_rules import (
    check_granted,
    check_missing_scope_permitted,
    check_narrower,
    lacking_required,
    required_scope_missing,
)
from authserver.internal.subject_tokens import SubjectTokenRejected, SubjectTokens
from authserver.internal.token_limits import TokenLimits
from authserver.oauth.errors import (
    InvalidGrant,
    InvalidTarget,
    TemporarilyUnavailable,
)
from authserver.oauth.resources import Release, Resource
from authserver.storage.connections import Connections
from authserver.storage.exchanged_tokens import NoSuchSession
from authserver.storage.records import Connection, ConnectionKey, Session
from authserver.storage.sessions import Sessions
from authserver.storage.users import UserBlocked
from authserver.tokens.access_tokens import VerifiedClaims
from authserver.upstream.contract import ExchangingUpstream, Upstreams
from authserver.values import Hidden, Value
from chassis.clock import Clock
from chassis.spiffe_id import Workload

_MAX_CACHE_SECONDS: Final = 60


# Neither is frozen: making a frozen one takes eight times as long, and each exchange makes both.


class ReleasedToken(Value, frozen=True):
    """An upstream access token on its way to its owner; seconds, None where unknown."""

    access_token: Hidden[str]
    expires_in: int | None
    scope: str | None
    upstream: str
    cache_ttl: int
    refreshed: bool
    release: tuple[Release, ...]
    # The upstream of the connection that the token lives on.
    root: str
    # Where the account's APIs are, as the token answer said.
    origins: tuple[tuple[str, str], ...] = ()


class ReleaseTarget(Value, frozen=True):
    """What a proven owner may obtain with an accepted JWT; `connection` is None where none is.

    `exchanged` is set where an exchange makes the token. `named`: the session's authorization named
    the upstream, as far as that is known.
    """

    resource: Resource
    upstream: str
    connection: Connection | None
    exchanged: ExchangeMeant | None = None
    named: bool = True

    @property
    def connected_at(self) -> str:
        """The upstream at which a user connects what is missing."""
        return self.upstream if self.exchanged is None else self.exchanged.upstream.made_of


class Exchange:
    """Two steps, behind those of `SubjectTokens`: `authorize`, then `release`."""

    def __init__(
        self,
        subject_tokens: SubjectTokens,
        connections: Connections,
        sessions: Sessions,
        refresher: TokenRefresher,
        exchanged: ExchangedRelease,
        upstreams: Upstreams,
        connect_links: ConnectLinks,
        limits: TokenLimits,
        clock: Clock,
    ) -> None:
        self._subject_tokens = subject_tokens
        self._connections, self._sessions = connections, sessions
        self._refresher, self._exchanged = refresher, exchanged
        self._upstreams = upstreams
        self._connect_links = connect_links
        self._limits, self._clock = limits, clock

    async def authorize(
        self, caller: Workload, claims: VerifiedClaims, request: ExchangeRequest
    ) -> ReleaseTarget:
        """What the caller may obtain of the upstream that is asked for, or of the only one.

        Raises SubjectTokenRejected to anyone but the session's owner, RateLimited and
        InvalidTarget to the owner.
        """
        self._limits.releases.take(str(caller), self._clock())
        resource = self._subject_tokens.owned(caller, claims.audience)
        released = self._released_of(resource)
        chosen = _select_upstream(request.upstream, released)
        if chosen in resource.exchanged:
            target = await self._exchanged_target(claims, resource, chosen, request)
        else:
            connection = await self._connection(claims, resource, chosen)
            target = ReleaseTarget(resource, chosen, connection)
        _check_permitted(chosen, released)
        return target

    def _released_of(self, resource: Resource) -> tuple[str, ...]:
        """The upstreams whose own tokens are released, of those the resource has."""
        upstreams = self._upstreams
        return tuple(
            name
            for name in resource.upstreams
            if name not in upstreams or not upstreams[name].exchange_only
        )

    async def _exchanged_target(
        self, claims: VerifiedClaims, resource: Resource, name: str, request: ExchangeRequest
    ) -> ReleaseTarget:
        upstream = cast("ExchangingUpstream", self._upstreams[name])
        parent = ConnectionKey(claims.subject, resource.owner, upstream.made_of)
        token = meant(upstream, parent, request)
        try:
            stored, named = await self._exchanged.stored(
                token,
                claims.tsid,
                client_id=claims.client_id,
                resource=resource.url,
                now=self._clock(),
                owner_uids=resource.owner_uids,
            )
        except NoSuchSession:
            raise SubjectTokenRejected(DenialReason.NO_SUCH_SESSION) from None
        except UserBlocked:
            raise InvalidGrant(DenialReason.USER_BLOCKED) from None
        return ReleaseTarget(resource, name, stored, token, named)

    async def release(
        self, target: ReleaseTarget, claims: VerifiedClaims, request: ExchangeRequest
    ) -> ReleasedToken:
        """A fresh access token of the target. Raises InvalidGrant and TemporarilyUnavailable.

        InvalidGrant says where the user can connect the upstream, if that helps. Raises
        StepUpRequired, InvalidRequest, InvalidTarget or InvalidScope where the request wants what
        this token does not have.

        A session whose connection can give nothing any more is marked: the client's next refresh
        is refused, so that the client opens a sign-in.
        """
        if target.exchanged is None:
            check_narrower(request)
        elif target.exchanged.refusal is not None:
            raise target.exchanged.refusal
        try:
            return await self._release(target, claims, request)
        except InvalidGrant as refusal:
            raise await self._with_link(refusal, target, claims) from None

    async def _with_link(
        self, refusal: InvalidGrant, target: ReleaseTarget, claims: VerifiedClaims
    ) -> InvalidGrant:
        """The refusal, with a link where its user can connect the upstream again."""
        ended = refusal.reason in (DenialReason.CONNECTION_GONE, DenialReason.USER_BLOCKED)
        if ended or target.connected_at not in self._upstreams:
            return refusal
        url = await self._connect_links.url_of(claims.tsid, target.connected_at)
        return refusal.with_members(connect_url=url)

    async def _release(
        self, target: ReleaseTarget, claims: VerifiedClaims, request: ExchangeRequest
    ) -> ReleasedToken:
        lacking = lacking_required(target.resource.required_scopes, claims)
        if lacking:
            raise required_scope_missing(lacking, await self._session(claims))
        missing = request.missing_scope
        if missing:
            check_missing_scope_permitted(missing, self._upstreams.get(target.upstream))
        if target.exchanged is None:
            if target.connection is None:
                raise InvalidGrant(DenialReason.NO_CONNECTION)
            connection = target.connection
        elif not target.named:
            raise InvalidGrant(DenialReason.NO_CONNECTION)
        if missing:
            check_granted(missing, connection, await self._session(claims))
        try:
            if target.exchanged is not None:
                return await self._exchange(target, target.exchanged, request, claims)
            return await self._ensure_fresh(connection, request, claims, target.resource)
        except InvalidGrant as refusal:
            # What the operator can put right is not the user's to mend by signing in.
            if refusal.reason != DenialReason.UPSTREAM_REGISTRATION_CHANGED:
                await self._sessions.require_sign_in(
                    claims.tsid, target.connected_at, now=int(self._clock())
                )
            raise

    async def _session(self, claims: VerifiedClaims) -> Session:
        """The session itself: its token may have fewer scopes (RFC 6749 section 6).

        Raises InvalidGrant.
        """
        session = await self._sessions.get(claims.tsid)
        if session is None:
            raise InvalidGrant(DenialReason.CONNECTION_GONE)
        return session

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
                owner_uids=resource.owner_uids,
            )
        except NoSuchSession:
            raise SubjectTokenRejected(DenialReason.NO_SUCH_SESSION) from None
        except UserBlocked:
            raise InvalidGrant(DenialReason.USER_BLOCKED) from None

    async def _ensure_fresh(
        self,
        connection: Connection,
        request: ExchangeRequest,
        claims: VerifiedClaims,
        resource: Resource,
    ) -> ReleasedToken:
        rejected = request.rejected_sha256 is not None and hmac.compare_digest(
            request.rejected_sha256, _sha256(connection.tokens.access_token)
        )
        if not rejected and self._refresher.usable_now(connection, request.min_ttl):
            return self._released(connection, claims, resource, refreshed=False)
        try:
            usable = await self._refresher.usable(
                connection, min_ttl=request.min_ttl, rejected=rejected
            )
        except TemporarilyUnavailable:
            await self._check_session(claims, resource, connection.key)
            raise
        await self._check_session(claims, resource, connection.key)
        refreshed = usable.generation != connection.generation
        return self._released(usable, claims, resource, refreshed=refreshed)

    async def _exchange(
        self,
        target: ReleaseTarget,
        token: ExchangeMeant,
        request: ExchangeRequest,
        claims: VerifiedClaims,
    ) -> ReleasedToken:
        stored, resource = target.connection, target.resource
        rejected = (
            stored is not None
            and request.rejected_sha256 is not None
            and hmac.compare_digest(request.rejected_sha256, _sha256(stored.tokens.access_token))
        )
        if (
            stored is not None
            and not rejected
            and self._exchanged.usable_now(stored, request.min_ttl)
        ):
            return self._released(stored, claims, resource, refreshed=False)
        parent = await self._connection(claims, resource, token.upstream.made_of)
        try:
            made = await self._exchanged.made(
                token, stored, parent, min_ttl=request.min_ttl, rejected=rejected
            )
        except TemporarilyUnavailable:
            await self._check_session(claims, resource, token.parent)
            raise
        await self._check_session(claims, resource, token.parent)
        refreshed = stored is None or made.generation != stored.generation
        return self._released(made, claims, resource, refreshed=refreshed)

    async def _check_session(
        self, claims: VerifiedClaims, resource: Resource, key: ConnectionKey
    ) -> None:
        """Time has passed in which the session may have been ended. Raises InvalidGrant then."""
        try:
            await self._connection(claims, resource, key.upstream)
        except SubjectTokenRejected:
            raise InvalidGrant(DenialReason.CONNECTION_GONE) from None

    def _released(
        self,
        connection: Connection,
        claims: VerifiedClaims,
        resource: Resource,
        *,
        refreshed: bool,
    ) -> ReleasedToken:
        now, tokens = self._clock(), connection.tokens
        limits = [_MAX_CACHE_SECONDS, claims.expires_at - now]
        expires_in = None
        if tokens.expires_at is not None:
            expires_in = int(tokens.expires_at - now)
            if expires_in < 1:
                raise TemporarilyUnavailable(DenialReason.UPSTREAM_TOKEN_ALREADY_OVER)
            limits.append(tokens.expires_at - now - margin(tokens))
        return ReleasedToken(
            tokens.access_token,
            expires_in,
            tokens.scope,
            connection.key.upstream,
            cache_ttl=max(0, int(min(limits))),
            refreshed=refreshed,
            release=resource.release,
            root=connection.key.made_of or connection.key.upstream,
            origins=tokens.origins,
        )


def _select_upstream(requested: str | None, released: Sequence[str]) -> str:
    """The upstream that is asked for; empty where it had to be named and was not."""
    if requested is None:
        return released[0] if len(released) == 1 else ""
    return requested


def _check_permitted(upstream: str, released: Sequence[str]) -> None:
    """Whether the operator allows this resource the upstream; for its proven owner only."""
    if not upstream:
        raise InvalidTarget(DenialReason.UPSTREAM_NOT_NAMED, "audience must name an upstream")
    if upstream not in released:
        raise InvalidTarget(DenialReason.UPSTREAM_NOT_PERMITTED)


def _sha256(token: str) -> str:
    digest = hashlib.sha256(token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
