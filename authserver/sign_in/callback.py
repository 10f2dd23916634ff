"""The upstream's answer: redeem its code, keep what it gave, and go on."""

from collections.abc import Mapping

from msgspec.structs import replace

from authserver.audit import Outcome
from authserver.handles import hash_of
from authserver.oauth.errors import (
    AccessDenied,
    ErrorRedirect,
    ProtocolError,
    UserFacingError,
)
from authserver.sign_in.consent import NOT_YOUR_SIGN_IN
from authserver.sign_in.next_step import NextStep, Redirect
from authserver.sign_in.services import SignInServices, outcome_of, subject_of
from authserver.sign_in.upstream_errors import log_failure, refusal_of
from authserver.sign_in.upstream_login import UpstreamLogin
from authserver.storage.records import Account, PendingSignIn, Stage
from authserver.upstream.contract import UpstreamFailure


class Callback:
    """GET /oauth/callback/{upstream}."""

    def __init__(
        self, services: SignInServices, upstream_login: UpstreamLogin, next_step: NextStep
    ) -> None:
        self._services, self._upstream_login = services, upstream_login
        self._next_step = next_step

    async def handle(
        self, upstream: str, fields: Mapping[str, str], browser: str | None
    ) -> Redirect:
        """Where to send the user next. Raises UserFacingError or Redirected.

        The transaction is consumed only by the browser that started it, at the upstream it was
        sent to: nobody can complete, or use up, a sign-in of somebody else.
        """
        state = fields.get("state")
        if state is None or browser is None:
            raise UserFacingError("callback_without_state_or_cookie", NOT_YOUR_SIGN_IN)
        pending = await self._services.pending_sign_ins.take(
            hash_of(state),
            Stage.UPSTREAM,
            hash_of(browser),
            upstream=upstream,
            now=self._services.clock(),
        )
        if pending is None:
            raise UserFacingError("no_such_transaction", NOT_YOUR_SIGN_IN)
        try:
            return await self._go_on(pending, fields, browser)
        except ProtocolError as refusal:
            request = pending.request
            self._services.audit.sign_in(
                subject_of(pending, pending.upstream), outcome_of(refusal), refusal.reason
            )
            raise ErrorRedirect(
                refusal, request.redirect_uri, request.state, pending.upstream
            ) from None

    async def _go_on(
        self, pending: PendingSignIn, fields: Mapping[str, str], browser: str
    ) -> Redirect:
        try:
            grant = await self._upstream_login.redeem(pending, fields)
            self._services.record_login(pending, pending.upstream, Outcome.SUCCESS)
            if not pending.names_its_user:
                pending = replace(pending, account=Account(grant.account, grant.upstream))
            pending = replace(pending, grants=(*pending.grants, grant))
        except (UpstreamFailure, AccessDenied) as failure:
            # A linked upstream that fails does not cost what the others gave; without the
            # first one there is no user.
            log_failure(pending.upstream, failure, linked=pending.names_its_user)
            refusal = refusal_of(failure)
            self._services.record_login(
                pending, pending.upstream, outcome_of(refusal), refusal.reason
            )
            if not pending.names_its_user:
                raise refusal from None
            pending = replace(pending, failed=(*pending.failed, pending.upstream))
        return await self._next_step.run(pending, browser)
