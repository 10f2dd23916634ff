"""The upstream's answer: redeem its code, keep what it gave, and go on."""

from collections.abc import Mapping
from dataclasses import replace

from authserver.handles import hash_of
from authserver.oauth.errors import (
    AccessDenied,
    ErrorRedirect,
    ProtocolError,
    TemporarilyUnavailable,
    UserFacingError,
)
from authserver.sign_in.consent import NOT_YOUR_SIGN_IN
from authserver.sign_in.next_step import NextStep, Redirect
from authserver.sign_in.services import SignInServices
from authserver.sign_in.upstream_login import UpstreamLogin
from authserver.storage.records import Grant, PendingSignIn, Stage
from authserver.upstream.contract import Unavailable, UpstreamFailure
from chassis.logs import Log

_log = Log("callback")


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
            raise ErrorRedirect(refusal, request.redirect_uri, request.state) from None

    async def _go_on(
        self, pending: PendingSignIn, fields: Mapping[str, str], browser: str
    ) -> Redirect:
        try:
            grant = await self._redeem(pending, fields)
            pending = replace(pending, grants=(*pending.grants, grant))
        except (UpstreamFailure, AccessDenied) as failure:
            # A linked upstream that fails does not cost what the others gave; without the
            # first one there is no user.
            if not pending.names_its_user:
                raise _refusal(failure) from None
            _log.warning("linked_upstream_failed", upstream=pending.upstream)
        return await self._next_step.run(pending, browser)

    async def _redeem(self, pending: PendingSignIn, fields: Mapping[str, str]) -> Grant:
        if "code" not in fields or "error" in fields:
            raise AccessDenied("upstream_denied")
        upstream = self._upstream_login.upstream(pending.upstream)
        return await upstream.redeem(
            fields["code"],
            redirect_uri=self._upstream_login.callback_uri(pending.upstream),
            code_verifier=pending.code_verifier,
            nonce=pending.nonce,
            issuer=fields.get("iss"),
        )


def _refusal(failure: UpstreamFailure | AccessDenied) -> ProtocolError:
    if isinstance(failure, AccessDenied):
        return failure
    if isinstance(failure, Unavailable):
        return TemporarilyUnavailable(f"upstream_{failure}")
    return AccessDenied(f"upstream_{failure}")
