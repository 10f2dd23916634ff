"""Connecting an upstream account by a link: the right person, one account, one confirmed answer.

A GET changes nothing. A link is used up when an account is attached, which takes a form of ours
from the browser that the upstream answered to, at which the link's own user is signed in.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from authserver.account.connect_steps import (
    DECLINED,
    FAILED,
    NOT_FROM_HERE,
    NOT_YOURS,
    OTHER_ACCOUNT,
    Confirmation,
    Connected,
    ConnectPrompt,
    SignInFirst,
)
from authserver.account.connect_subject import LINK_IS_OVER, ConnectSubject, ConnectSubjects
from authserver.audit import Outcome, Subject
from authserver.connections.connect_links import ConnectLinks
from authserver.handles import hash_of
from authserver.oauth.errors import AccessDenied, UserFacingError
from authserver.sign_in.browser_session import BrowserLogin
from authserver.sign_in.next_step import Redirect
from authserver.sign_in.services import SignInServices, outcome_of
from authserver.sign_in.upstream_errors import log_failure, refusal_of
from authserver.sign_in.upstream_login import PENDING_SIGN_IN_SECONDS, UpstreamLogin
from authserver.storage.browser_sessions import SignedIn
from authserver.storage.completed_sign_ins import NewBrowserSession
from authserver.storage.connected_accounts import ConnectedAccounts, LinkIsOver
from authserver.storage.records import (
    NO_ACCOUNT,
    Account,
    AuthorizationRequest,
    Grant,
    PendingSignIn,
    Stage,
)
from authserver.storage.users import UserBlocked, Users
from authserver.upstream.contract import UpstreamFailure

# A state with this at its front comes back from an upstream to these pages.
STATE_PREFIX: Final = "connect."
SIGN_IN, SIGN_IN_OTHER, CONNECT, CONFIRM, START_OVER, CANCEL = (
    "sign_in", "sign_in_other", "connect", "confirm", "start_over", "cancel",
)  # fmt: skip


class Connect:
    def __init__(
        self,
        services: SignInServices,
        upstream_login: UpstreamLogin,
        browser_login: BrowserLogin,
        subjects: ConnectSubjects,
        links: ConnectLinks,
        users: Users,
        accounts: ConnectedAccounts,
        *,
        session_seconds: int,
    ) -> None:
        self._services, self._upstream_login = services, upstream_login
        self._browser_login, self._subjects, self._links = browser_login, subjects, links
        self._users, self._accounts = users, accounts
        self._session_seconds = session_seconds

    async def describe(
        self, text: str, browser: str, session: str | None
    ) -> SignInFirst | ConnectPrompt:
        """GET /connect/{link}: what the browser's person may see of it; changes nothing.

        A stranger learns that there is something to sign in to, another user that the link is not
        theirs. Raises UserFacingError.
        """
        subject = await self._subjects.open(text)
        visitor = await self._browser_login.user_of(session)
        if visitor is None or session is None or visitor.user_id != subject.session.user_id:
            other = None if visitor is None else visitor.account
            return SignInFirst(text, _form_token("sign-in", browser, text), other)
        applications = await self._subjects.applications(subject)
        token = _form_token("connect", session, text)
        return ConnectPrompt(subject, token, visitor.account, applications)

    async def begin(
        self,
        text: str,
        fields: Mapping[str, str],
        browser: str | None,
        session: str | None,
        fetch_site: str | None,
    ) -> Redirect:
        """POST /connect/{link}: on to an upstream, to sign in or to connect.

        Raises UserFacingError.
        """
        _check_site(fetch_site)
        if browser is None:
            raise UserFacingError("connect_without_cookie", NOT_FROM_HERE, status=403)
        subject = await self._subjects.open(text)
        decision, token = fields.get("decision"), fields.get("token", "")
        if decision in (SIGN_IN, SIGN_IN_OTHER):
            _check_token(token, _form_token("sign-in", browser, text))
            pending = self._pending(subject, subject.resource.upstreams[0])
            pending = replace(pending, asks_for_account=decision == SIGN_IN_OTHER)
        elif decision == CONNECT and session is not None:
            _check_token(token, _form_token("connect", session, text))
            visitor = await self._visitor(subject, session)
            pending = replace(
                self._pending(subject, subject.upstream.name), user_id=visitor.user_id
            )
        else:
            raise UserFacingError("connect_incomplete", NOT_FROM_HERE, status=403)
        return await self._start(pending, browser)

    async def answered(
        self, upstream: str, fields: Mapping[str, str], browser: str | None
    ) -> Redirect | Confirmation:
        """GET /oauth/callback/{upstream} with a state of ours: what the upstream gave.

        Raises UserFacingError.
        """
        pending = await self._take(fields.get("state"), Stage.CONNECT, browser, upstream)
        subject = await self._subjects.again(pending.connects)
        grant = await self._redeemed(pending, fields)
        if pending.user_id:
            await self._check_same_account(subject, grant)
            return await self._confirmation(subject, grant, browser)
        return await self._signed_in(subject, grant, browser)

    async def settle(
        self,
        fields: Mapping[str, str],
        browser: str | None,
        session: str | None,
        fetch_site: str | None,
    ) -> Redirect | Connected:
        """POST /connect/confirm: attach the account, start over, or leave it.

        Raises UserFacingError.
        """
        _check_site(fetch_site)
        decision = fields.get("decision")
        if decision not in (CONFIRM, START_OVER, CANCEL):
            raise UserFacingError("connect_incomplete", NOT_FROM_HERE, status=403)
        pending = await self._take(fields.get("transaction"), Stage.CONNECT_CONSENT, browser, "")
        subject = await self._subjects.again(pending.connects)
        await self._visitor(subject, session)
        (grant,) = pending.grants
        account = Account(grant.account, grant.upstream)
        if decision == START_OVER:
            again = self._pending(subject, grant.upstream)
            again = replace(again, user_id=pending.user_id, asks_for_account=True)
            return await self._start(again, browser or "")
        if decision == CANCEL:
            self._record(subject, Outcome.REFUSED, "user_denied")
            return Connected(subject, account, attached=False)
        await self._attach(subject, grant)
        return Connected(subject, account, attached=True)

    async def _attach(self, subject: ConnectSubject, grant: Grant) -> None:
        try:
            await self._accounts.connect(
                subject.session,
                grant,
                hash_of(subject.text),
                exchanged=[one.name for one in subject.exchanged],
                link_expires_at=subject.link.expires_at,
                now=int(self._services.clock()),
            )
        except LinkIsOver:
            self._record(subject, Outcome.FAILED, "link_is_over")
            raise UserFacingError("connect_link_refused", LINK_IS_OVER) from None
        self._record(subject, Outcome.SUCCESS)

    async def _signed_in(
        self, subject: ConnectSubject, grant: Grant, browser: str | None
    ) -> Redirect | Confirmation:
        """The person at the browser has named themselves: the link's user, or somebody else."""
        user = await self._users.get(subject.session.user_id)
        if user is None or (user.upstream_issuer, user.subject) != (
            grant.upstream_issuer,
            grant.upstream_subject,
        ):
            self._record(subject, Outcome.REFUSED, "another_user")
            raise UserFacingError("connect_by_another_user", NOT_YOURS, status=403)
        handle, now = self._services.new_handle(), int(self._services.clock())
        began = NewBrowserSession(hash_of(handle), now + self._session_seconds)
        if subject.identifies:
            try:
                await self._accounts.recognise(user.user_id, grant, began, now=now)
            except UserBlocked:
                raise UserFacingError("connect_link_refused", LINK_IS_OVER) from None
            return replace(await self._confirmation(subject, grant, browser), session=handle)
        try:
            # Of a provider that keeps only the newest tokens of a user, these are the good ones.
            await self._accounts.sign_in(subject.session, grant, began, now=now)
        except LinkIsOver:
            raise UserFacingError("connect_link_refused", LINK_IS_OVER) from None
        return Redirect(self._links.url(subject.text), handle)

    async def _check_same_account(self, subject: ConnectSubject, grant: Grant) -> None:
        """The upstream that names the user attaches nobody else to them."""
        if not subject.identifies:
            return
        user = await self._users.get(subject.session.user_id)
        if user is None or (user.upstream_issuer, user.subject) != (
            grant.upstream_issuer,
            grant.upstream_subject,
        ):
            self._record(subject, Outcome.REFUSED, "another_account")
            raise UserFacingError("connect_of_another_account", OTHER_ACCOUNT, status=403)

    async def _confirmation(
        self, subject: ConnectSubject, grant: Grant, browser: str | None
    ) -> Confirmation:
        handle = self._services.new_handle()
        pending = replace(
            self._pending(subject, ""),
            remaining=(),
            grants=(grant,),
            user_id=subject.session.user_id,
        )
        await self._services.pending_sign_ins.put(
            hash_of(handle),
            Stage.CONNECT_CONSENT,
            hash_of(browser or ""),
            pending,
            expires_at=int(self._services.clock()) + PENDING_SIGN_IN_SECONDS,
        )
        applications = await self._subjects.applications(subject)
        return Confirmation(subject, handle, Account(grant.account, grant.upstream), applications)

    async def _redeemed(self, pending: PendingSignIn, fields: Mapping[str, str]) -> Grant:
        try:
            grant = await self._upstream_login.redeem(pending, fields)
        except (UpstreamFailure, AccessDenied) as failure:
            raise self._failure(pending, failure) from None
        self._services.record_login(pending, pending.upstream, Outcome.SUCCESS)
        return grant

    def _failure(
        self, pending: PendingSignIn, failure: UpstreamFailure | AccessDenied
    ) -> UserFacingError:
        name = pending.upstream or pending.remaining[0]
        log_failure(name, failure, linked=True)
        refusal = refusal_of(failure)
        self._services.record_login(pending, name, outcome_of(refusal), refusal.reason)
        if isinstance(failure, AccessDenied):
            return UserFacingError(refusal.reason, DECLINED)
        return UserFacingError(refusal.reason, FAILED, status=502)

    async def _start(self, pending: PendingSignIn, browser: str) -> Redirect:
        try:
            url = await self._upstream_login.start(
                pending, browser, stage=Stage.CONNECT, state_prefix=STATE_PREFIX
            )
        except UpstreamFailure as failure:
            raise self._failure(pending, failure) from None
        return Redirect(url)

    async def _take(
        self, handle: str | None, stage: Stage, browser: str | None, upstream: str
    ) -> PendingSignIn:
        """Consume a step, which only the browser that began it can."""
        pending = None
        if handle is not None and browser is not None:
            pending = await self._services.pending_sign_ins.take(
                hash_of(handle),
                stage,
                hash_of(browser),
                upstream=upstream,
                now=self._services.clock(),
            )
        if pending is None:
            raise UserFacingError("no_such_transaction", NOT_FROM_HERE)
        return pending

    async def _visitor(self, subject: ConnectSubject, session: str | None) -> SignedIn:
        """The link's user, signed in at this browser. Raises UserFacingError for anybody else."""
        visitor = await self._browser_login.user_of(session)
        if visitor is None or visitor.user_id != subject.session.user_id:
            raise UserFacingError("connect_by_another_user", NOT_YOURS, status=403)
        return visitor

    def _pending(self, subject: ConnectSubject, upstream: str) -> PendingSignIn:
        session = subject.session
        request = AuthorizationRequest(
            session.client_id,
            redirect_uri="",
            state=None,
            code_challenge="",
            resource=session.resource,
            scope=session.scope,
            owner=session.owner,
            owner_uid=session.owner_uid,
        )
        return PendingSignIn(
            request, remaining=(upstream,), account=NO_ACCOUNT, connects=subject.text
        )

    def _record(self, subject: ConnectSubject, outcome: Outcome, reason: str = "") -> None:
        session = subject.session
        who = Subject(
            session.user_id,
            session.client_id,
            session.tsid,
            session.resource,
            subject.upstream.name,
        )
        self._services.audit.connect(who, outcome, reason)


def _check_site(fetch_site: str | None) -> None:
    """`Sec-Fetch-Site`, where a browser sends it: the second look beside the form's token."""
    if fetch_site not in (None, "same-origin"):
        raise UserFacingError("connect_from_another_site", NOT_FROM_HERE, status=403)


def _check_token(given: str, expected: str) -> None:
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise UserFacingError("connect_incomplete", NOT_FROM_HERE, status=403)


def _form_token(step: str, secret: str, text: str) -> str:
    """Proves that a form was ours: `secret` is a cookie that no page of another site can read."""
    return hashlib.sha256(f"{step} {secret} {text}".encode()).hexdigest()
