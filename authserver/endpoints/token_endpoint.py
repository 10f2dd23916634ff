"""The token endpoint: `authorization_code` and `refresh_token`. No upstream is ever asked here."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from msgspec.structs import replace

from authserver.audit import Audit, Outcome, subject_of
from authserver.clients.authentication import ClientAuthentication
from authserver.config.settings import Lifetimes
from authserver.connections.session_health import SessionHealth
from authserver.connections.termination import SessionTermination
from authserver.handles import NewHandle, hash_of
from authserver.oauth import pkce
from authserver.oauth.errors import (
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    ProtocolError,
    TemporarilyUnavailable,
    UnauthorizedClient,
    UnsupportedGrantType,
)
from authserver.oauth.resources import ResourceMap
from authserver.oauth.scopes import OFFLINE_ACCESS, OPENID
from authserver.storage.authorization_codes import AuthorizationCodes
from authserver.storage.clients import Clients as RegisteredClients
from authserver.storage.records import Client, Code, Session
from authserver.storage.refresh_tokens import (
    NewRefreshToken,
    RefreshTokens,
    Repeated,
    Reused,
    Rotated,
)
from authserver.storage.sessions import Sessions
from authserver.tokens.access_tokens import AccessTokens
from authserver.tokens.id_tokens import IdTokens
from authserver.values import Value
from chassis.clock import Clock

# The immediate predecessor of an unused refresh token gets that same token again for so long:
# several processes of one client share it, and answers get lost.
GRACE_SECONDS: Final = 30
_RETRY_SECONDS: Final = 60


class GrantStores(Value, frozen=True):
    """Where grants are kept: codes, refresh tokens and their sessions."""

    codes: AuthorizationCodes
    refresh_tokens: RefreshTokens
    sessions: Sessions


class TokenIssuing(Value, frozen=True):
    """What is needed to make tokens."""

    access_tokens: AccessTokens
    id_tokens: IdTokens
    lifetimes: Lifetimes
    clock: Clock
    new_handle: NewHandle


class TokenEndpoint:
    """POST /oauth/token."""

    def __init__(
        self,
        authentication: ClientAuthentication,
        registered: RegisteredClients,
        stores: GrantStores,
        session_health: SessionHealth,
        termination: SessionTermination,
        issuing: TokenIssuing,
        resources: ResourceMap,
        audit: Audit,
    ) -> None:
        self._authentication, self._registered = authentication, registered
        self._codes, self._refresh_tokens = stores.codes, stores.refresh_tokens
        self._sessions = stores.sessions
        self._session_health, self._termination = session_health, termination
        self._tokens, self._id_tokens = issuing.access_tokens, issuing.id_tokens
        self._lifetimes, self._clock = issuing.lifetimes, issuing.clock
        self._new_handle = issuing.new_handle
        self._resources, self._audit = resources, audit

    async def answer(self, fields: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
        """The body of a successful answer (RFC 6749 section 5.1). Raises ProtocolError."""
        client = await self._authentication.authenticate(fields, headers, self._clock())
        match fields.get("grant_type"):
            case "authorization_code":
                return await self._authorization_code(client, fields)
            case "refresh_token":
                return await self._refresh_token(client, fields)
            case None:
                raise InvalidRequest("no_grant_type", "grant_type is missing")
            case _:
                raise UnsupportedGrantType("unsupported_grant_type")

    async def _authorization_code(
        self, client: Client, fields: Mapping[str, str]
    ) -> dict[str, Any]:
        code_hash = hash_of(fields.get("code", ""))
        code = await self._codes.get(code_hash, self._clock())
        if code is None or not self._belongs(code, client, fields):
            raise InvalidGrant("code_unknown_or_not_of_this_request")
        self._check_in_map(code.resource)
        self._check_resource(fields, code.resource)
        now = int(self._clock())
        pending = await self._sessions.get(code.tsid)
        if pending is not None and pending.blocked:
            raise InvalidGrant("user_blocked")
        asks_for_refresh = pending is not None and OFFLINE_ACCESS in pending.scope.split()
        may_refresh = client.may_refresh or asks_for_refresh
        refresh = self._new_refresh_token(now, now) if may_refresh else None
        session = await self._codes.redeem(
            code_hash,
            now=now,
            session_expires_at=refresh.expires_at if refresh else now + self._tokens.lifetime,
            refresh_token=refresh,
        )
        if session is None:
            # A code that comes back with everything right was stolen before or after its first
            # use; which of the two is unknown, so nobody keeps what it gave (RFC 9700 4.13).
            await self._end(code.tsid, "code_replayed")
            raise InvalidGrant("code_replayed")
        await self._registered.keep(client.client_id)
        self._audit.token_grant(subject_of(session), Outcome.SUCCESS, "authorization_code")
        answer = self._answer(session, now)
        if refresh is not None:
            answer |= self._with_refresh_token(session, refresh.token, refresh.expires_at, now)
        if OPENID in session.scope.split():
            access_token = answer["access_token"]
            answer["id_token"] = self._id_tokens.mint(session, access_token, code.nonce, now)
        return answer

    def _belongs(self, code: Code, client: Client, fields: Mapping[str, str]) -> bool:
        """Whether the request is of the code's client, with its redirect URI where it sends one.

        OAuth 2.1 (draft 13, section 4.1.3) has no `redirect_uri` here: PKCE binds the request.
        """
        return (
            code.client_id == client.client_id
            and fields.get("redirect_uri", code.redirect_uri) == code.redirect_uri
            and pkce.matches(fields.get("code_verifier", ""), code.code_challenge)
        )

    async def _refresh_token(self, client: Client, fields: Mapping[str, str]) -> dict[str, Any]:
        presented = hash_of(fields.get("refresh_token", ""))
        session = await self._refresh_tokens.session(presented)
        if session is None or not session.live(self._clock()):
            blocked = session is not None and session.blocked
            raise InvalidGrant("user_blocked" if blocked else "refresh_token_unknown_or_over")
        with self._audited(session):
            await self._check_refresh(client, session, fields)
            return await self._rotate(session, presented, self._narrowed_scope(fields, session))

    @contextmanager
    def _audited(self, session: Session) -> Iterator[None]:
        """Write the event of a refresh grant, whichever way it ends."""
        try:
            yield
        except ProtocolError as refusal:
            outcome = Outcome.FAILED if refusal.status_code >= 500 else Outcome.REFUSED
            self._audit.token_grant(subject_of(session), outcome, refusal.reason)
            raise
        self._audit.token_grant(subject_of(session), Outcome.SUCCESS, "refresh_token")

    async def _check_refresh(
        self, client: Client, session: Session, fields: Mapping[str, str]
    ) -> None:
        """Refuse what can be refused without using the token up: it costs no session.

        Only a refresh token at another client ends the session, for that one was stolen.
        """
        if session.client_id != client.client_id:
            await self._termination.end(session, "refresh_token_at_another_client")
            raise InvalidGrant("refresh_token_of_another_client")
        if not client.may_refresh and OFFLINE_ACCESS not in session.scope.split():
            raise UnauthorizedClient("client_may_not_refresh")
        self._check_in_map(session.resource)
        self._check_resource(fields, session.resource)
        self._check_owner(session)
        self._check_required_scopes(session)
        self._narrowed_scope(fields, session)
        await self._session_health.check(session)

    async def _rotate(self, session: Session, presented: bytes, scope: str) -> dict[str, Any]:
        now = int(self._clock())
        successor = self._new_refresh_token(now, session.created_at)
        outcome = await self._refresh_tokens.rotate(
            presented, successor, now=now, grace=GRACE_SECONDS
        )
        match outcome:
            case Rotated():
                token, ends = successor.token, successor.expires_at
            case Repeated(successor=token, expires_at=ends):
                pass
            case Reused():
                await self._termination.end(session, "refresh_token_reused")
                raise InvalidGrant("refresh_token_reused")
            case None:
                raise InvalidGrant("refresh_token_unknown_or_over")
        answer = self._answer(replace(session, scope=scope), now)
        return answer | self._with_refresh_token(session, token, ends, now)

    def _check_in_map(self, url: str) -> None:
        """A resource that left the map gets no new JWT; its sessions wait for it to come back."""
        if self._resources.get(url) is None:
            raise TemporarilyUnavailable("resource_not_in_map", retry_after=_RETRY_SECONDS)

    def _check_resource(self, fields: Mapping[str, str], bound: str) -> None:
        requested = fields.get("resource")
        if requested is None:
            return
        resource = self._resources.resolve(requested)
        if resource is None or resource.url != bound:
            raise InvalidTarget("other_resource", "resource is not the one that was granted")

    def _check_owner(self, session: Session) -> None:
        """A session of a former owner is nobody's: only a new sign-in asks for the new one."""
        resource = self._resources.get(session.resource)
        if resource is None or resource.owner != session.owner:
            raise InvalidGrant("resource_changed_hands")
        if session.owner_uid not in resource.owner_uids:
            raise InvalidGrant("resource_changed_hands")

    def _check_required_scopes(self, session: Session) -> None:
        """A scope that the resource requires since the sign-in comes with a new sign-in only.

        Clients answer the server's 403 with a refresh, and sign in where that is refused.
        """
        resource = self._resources.get(session.resource)
        if resource is None or not set(resource.required_scopes) <= set(session.scope.split()):
            raise InvalidGrant("required_scope_not_granted")

    def _narrowed_scope(self, fields: Mapping[str, str], session: Session) -> str:
        """The scope of this one token: all that was granted, or less (RFC 6749 section 6)."""
        requested = fields.get("scope", session.scope).split()
        if not set(requested) <= set(session.scope.split()):
            raise InvalidScope("scope_widened", "scope goes beyond what was granted")
        return " ".join(dict.fromkeys(requested))

    def _new_refresh_token(self, now: int, session_created_at: int) -> NewRefreshToken:
        token = self._new_handle()
        absolute = session_created_at + self._lifetimes.refresh_token_absolute
        expires_at = min(now + self._lifetimes.refresh_token_idle, absolute)
        return NewRefreshToken(token, hash_of(token), expires_at)

    async def _end(self, tsid: str, reason: str) -> None:
        session = await self._sessions.get(tsid)
        if session is not None:
            await self._termination.end(session, reason)

    def _with_refresh_token(
        self, session: Session, token: str, expires_at: int, now: int
    ) -> dict[str, Any]:
        """The refresh token with both ends (draft-ietf-oauth-refresh-token-expiration, section 5).

        In seconds: how long it may be held, and how long the user's authorization lasts.
        """
        absolute = session.created_at + self._lifetimes.refresh_token_absolute
        return {
            "refresh_token": token,
            "refresh_token_timeout": max(0, expires_at - now),
            "authorization_expires_in": max(0, absolute - now, expires_at - now),
        }

    def _answer(self, session: Session, now: int) -> dict[str, Any]:
        return {
            "access_token": self._tokens.mint(session, jti=self._new_handle(), now=now),
            "token_type": "Bearer",
            "expires_in": self._tokens.lifetime,
            "scope": session.scope,
        }
