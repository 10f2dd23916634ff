"""A sign-in for nothing but the person's own pages: an upstream that names users says who it is."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from authserver.audit import Outcome
from authserver.handles import hash_of
from authserver.oauth.errors import AccessDenied, UserFacingError
from authserver.sign_in.next_step import Redirect
from authserver.sign_in.services import SignInServices, outcome_of
from authserver.sign_in.upstream_errors import log_failure, refusal_of
from authserver.sign_in.upstream_login import UpstreamLogin
from authserver.storage.completed_sign_ins import NewBrowserSession
from authserver.storage.connected_accounts import ConnectedAccounts
from authserver.storage.records import AuthorizationRequest, PendingSignIn, Stage
from authserver.storage.users import UserBlocked, Users
from authserver.upstream.contract import Upstream, UpstreamFailure
from authserver.values import Hidden, Value

# A state with this at its front comes back from an upstream to these pages.
STATE_PREFIX: Final = "account."

_NOT_FROM_HERE: Final = (
    "This sign-in was started in another browser, was already answered, or took too long. Open the "
    "page of your connections again."
)
_NOBODY: Final = (
    "Nothing of yours is connected here, so there is nothing to show. To begin, add an MCP server "
    "in your application."
)
BLOCKED: Final = "An administrator of this server has blocked you. Ask them why."
_FAILED: Final = "You were not signed in. Open the page of your connections again to try it."


class SignInChoices(Value, frozen=True):
    """The page for somebody who is not signed in: the upstreams that can say who they are."""

    upstreams: tuple[Upstream, ...]
    token: Hidden[str]


class AccountSignIn:
    def __init__(
        self,
        services: SignInServices,
        upstream_login: UpstreamLogin,
        users: Users,
        accounts: ConnectedAccounts,
        *,
        session_seconds: int,
    ) -> None:
        self._services, self._upstream_login = services, upstream_login
        self._users, self._accounts = users, accounts
        self._session_seconds = session_seconds

    def describe(self, browser: str) -> SignInChoices:
        """The choices, and the token that the form must bring back."""
        names = self._services.resources.identifying()
        known = (self._services.upstreams.get(name) for name in names)
        return SignInChoices(
            tuple(upstream for upstream in known if upstream is not None), _form_token(browser)
        )

    async def begin(
        self, fields: Mapping[str, str], browser: str | None, fetch_site: str | None
    ) -> Redirect:
        """POST /connections/sign-in: on to an upstream. Raises UserFacingError."""
        if fetch_site not in (None, "same-origin"):
            raise UserFacingError("account_from_another_site", _NOT_FROM_HERE, status=403)
        name = fields.get("upstream", "")
        if (
            browser is None
            or name not in self._services.resources.identifying()
            or not hmac.compare_digest(
                fields.get("token", "").encode(), _form_token(browser).encode()
            )
        ):
            raise UserFacingError("account_incomplete", _NOT_FROM_HERE, status=403)
        request = AuthorizationRequest("", "", None, "", "", "")
        pending = PendingSignIn(request, remaining=(name,))
        try:
            url = await self._upstream_login.start(
                pending, browser, stage=Stage.ACCOUNT, state_prefix=STATE_PREFIX
            )
        except UpstreamFailure as failure:
            raise self._failure(pending, name, failure) from None
        return Redirect(url)

    async def answered(
        self, upstream: str, fields: Mapping[str, str], browser: str | None
    ) -> Redirect:
        """The upstream's answer: back to the page, signed in. Raises UserFacingError.

        Nobody becomes a user here, and no token is kept: nobody has agreed to any use of one.
        """
        state = fields.get("state")
        pending = None
        if state is not None and browser is not None:
            pending = await self._services.pending_sign_ins.take(
                hash_of(state),
                Stage.ACCOUNT,
                hash_of(browser),
                upstream=upstream,
                now=self._services.clock(),
            )
        if pending is None:
            raise UserFacingError("no_such_transaction", _NOT_FROM_HERE)
        try:
            grant = await self._upstream_login.redeem(pending, fields)
        except (UpstreamFailure, AccessDenied) as failure:
            raise self._failure(pending, upstream, failure) from None
        self._services.record_login(pending, upstream, Outcome.SUCCESS)
        user = await self._users.named(grant.upstream_issuer, grant.upstream_subject)
        if user is None:
            raise UserFacingError("account_unknown", _NOBODY, status=404)
        handle, now = self._services.new_handle(), int(self._services.clock())
        began = NewBrowserSession(hash_of(handle), now + self._session_seconds)
        try:
            await self._accounts.recognise(user.user_id, grant, began, now=now)
        except UserBlocked:
            raise UserFacingError("user_blocked", BLOCKED, status=403) from None
        return Redirect(f"{self._services.issuer}/connections", handle)

    def _failure(
        self, pending: PendingSignIn, upstream: str, failure: UpstreamFailure | AccessDenied
    ) -> UserFacingError:
        log_failure(upstream, failure, linked=False)
        refusal = refusal_of(failure)
        self._services.record_login(pending, upstream, outcome_of(refusal), refusal.reason)
        return UserFacingError(refusal.reason, _FAILED)


def _form_token(browser: str) -> str:
    return hashlib.sha256(f"account sign-in {browser}".encode()).hexdigest()
