"""The next step of a sign-in that has its consent: one more upstream, or the end of it.

At the end everything is stored in one step, and the user goes back to the client with a code.
"""

from typing import Final

from msgspec.structs import replace

from authserver import audit
from authserver.audit import Outcome
from authserver.config.settings import Lifetimes
from authserver.handles import hash_of
from authserver.oauth.errors import AccessDenied, InvalidTarget
from authserver.oauth.redirect_uris import authorization_response_url
from authserver.oauth.resources import Resource
from authserver.oauth.scopes import upstream_scope
from authserver.sign_in.services import SignInServices
from authserver.sign_in.upstream_errors import log_failure, refusal_of
from authserver.sign_in.upstream_login import UpstreamLogin
from authserver.storage.completed_sign_ins import NewBrowserSession, SignIns
from authserver.storage.consents import Given
from authserver.storage.records import NO_ACCOUNT, Account, Code, PendingSignIn, Session
from authserver.storage.users import UserBlocked
from authserver.upstream.contract import UpstreamFailure
from authserver.values import Value

USER_BLOCKED: Final = "an administrator has blocked this user"


class Redirect(Value, frozen=True):
    """Where to send the user; `session` is the handle of the browser session that began.

    At the end, `account` names the person and `failed` the upstreams that were left out.
    """

    url: str
    session: str | None = None
    failed: tuple[str, ...] = ()
    account: Account = NO_ACCOUNT


class NextStep:
    def __init__(
        self,
        services: SignInServices,
        upstream_login: UpstreamLogin,
        sign_ins: SignIns,
        lifetimes: Lifetimes,
    ) -> None:
        self._services, self._upstream_login = services, upstream_login
        self._sign_ins, self._lifetimes = sign_ins, lifetimes

    async def run(self, pending: PendingSignIn, browser: str) -> Redirect:
        """Raises ProtocolError where the upstream that names the user cannot be asked,
        InvalidTarget where the resource is no longer that of the owner the user consented to, and
        AccessDenied for a blocked user.

        A linked upstream that fails is left out: it does not cost what the others gave.
        """
        self._check_owner(pending)
        while pending.remaining:
            try:
                return Redirect(await self._upstream_login.start(pending, browser))
            except UpstreamFailure as failure:
                name, *rest = pending.remaining
                log_failure(name, failure, linked=pending.names_its_user)
                self._services.record_login(pending, name, Outcome.FAILED, str(failure))
                if not pending.names_its_user:
                    raise refusal_of(failure) from None
                pending = replace(pending, remaining=tuple(rest), failed=(*pending.failed, name))
        return await self._complete(pending)

    async def _complete(self, pending: PendingSignIn) -> Redirect:
        request, now = pending.request, int(self._services.clock())
        session = self._new_session(pending, now)
        code = self._services.new_handle()
        began = None if pending.user_id else self._services.new_handle()
        try:
            stored = await self._sign_ins.complete(
                pending.grants,
                session,
                hash_of(code),
                _code(pending, session),
                code_expires_at=session.expires_at,
                user_known=began is None,
                consent=self._given(pending, now),
                browser=NewBrowserSession(hash_of(began), now + self._lifetimes.browser_session)
                if began
                else None,
            )
        except UserBlocked:
            raise AccessDenied("user_blocked", USER_BLOCKED) from None
        self._services.audit.sign_in(audit.subject_of(stored), Outcome.SUCCESS)
        url = authorization_response_url(
            request.redirect_uri, issuer=self._services.issuer, state=request.state, code=code
        )
        return Redirect(url, began, failed=pending.failed, account=pending.account)

    def _new_session(self, pending: PendingSignIn, now: int) -> Session:
        request, resource = pending.request, self._check_owner(pending)
        return Session(
            tsid=self._services.new_handle(),
            user_id=pending.user_id or self._services.new_handle(),
            client_id=request.client_id,
            resource=resource.url,
            owner=resource.owner,
            scope=request.scope,
            created_at=now,
            expires_at=now + self._lifetimes.authorization_code,  # until the code is redeemed
            signed_in_at=pending.signed_in_at or now,
            upstreams=request.upstreams or None,
            when_needed=_when_needed(pending, resource),
            declined_scopes=_declined_scopes(pending),
            owner_uid=resource.recorded_uid,
        )

    def _check_owner(self, pending: PendingSignIn) -> Resource:
        resource = self._services.resources.get(pending.request.resource)
        if resource is None:
            raise InvalidTarget("resource_gone")
        request = pending.request
        if resource.owner != request.owner or request.owner_uid not in resource.owner_uids:
            raise InvalidTarget("resource_changed_hands")
        return resource

    def _given(self, pending: PendingSignIn, now: int) -> Given | None:
        if not pending.question_hash:
            return None
        return Given(
            pending.question_hash,
            pending.request.client_id,
            pending.request.resource,
            now + self._lifetimes.remembered_consent,
        )


def _declined_scopes(pending: PendingSignIn) -> tuple[str, ...]:
    """What was asked for beyond the usual, and an upstream did not grant."""
    granted = {
        grant.upstream: set((grant.tokens.scope or grant.asked_scope).split())
        for grant in pending.grants
    }
    return tuple(
        upstream_scope(upstream, scope)
        for upstream, scope in pending.request.upstream_scopes
        if upstream in pending.failed or scope not in granted.get(upstream, {scope})
    )


def _when_needed(pending: PendingSignIn, resource: Resource) -> tuple[str, ...]:
    """The upstreams that this sign-in went on without: connected, if ever, by a link later."""
    marked = (name for name in pending.request.upstreams if name in resource.when_needed)
    return tuple(dict.fromkeys((*pending.failed, *marked)))


def _code(pending: PendingSignIn, session: Session) -> Code:
    request = pending.request
    return Code(
        session.tsid,
        request.client_id,
        request.redirect_uri,
        request.code_challenge,
        session.resource,
        request.nonce,
    )
