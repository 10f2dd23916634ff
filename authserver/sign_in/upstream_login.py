"""Sending the user to an upstream: one leg of a sign-in, bound to the browser and single use."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from authserver.handles import hash_of
from authserver.oauth import pkce
from authserver.oauth.redirect_uris import callback_uri
from authserver.oauth.scopes import of_upstream
from authserver.sign_in.services import SignInServices
from authserver.sign_in.upstream_errors import check_callback
from authserver.storage.records import Grant, PendingSignIn, Stage
from authserver.upstream.contract import (
    CallbackResponse,
    LoginRequest,
    Unavailable,
    Upstream,
)

PENDING_SIGN_IN_SECONDS: Final = 600


class UpstreamLogin:
    def __init__(self, services: SignInServices) -> None:
        self._services = services

    def callback_uri(self, upstream: str) -> str:
        return callback_uri(self._services.issuer, upstream)

    def upstream(self, name: str) -> Upstream:
        """Raises Unavailable for an upstream that is no longer configured."""
        upstream = self._services.upstreams.get(name)
        if upstream is None:
            raise Unavailable("upstream_not_configured")
        return upstream

    async def redeem(self, pending: PendingSignIn, fields: Mapping[str, str]) -> Grant:
        """What the upstream gives for its callback. Raises AccessDenied or UpstreamFailure."""
        code = check_callback(fields)
        upstream = self.upstream(pending.upstream)
        return await upstream.redeem(
            CallbackResponse(
                code=code,
                redirect_uri=self.callback_uri(pending.upstream),
                code_verifier=pending.code_verifier,
                nonce=pending.nonce,
                issuer=fields.get("iss"),
                more_scopes=of_upstream(pending.upstream, pending.request.upstream_scopes),
            )
        )

    async def start(
        self,
        pending: PendingSignIn,
        browser: str,
        *,
        stage: Stage = Stage.UPSTREAM,
        state_prefix: str = "",
    ) -> str:
        """Start the next leg with fresh state, nonce and PKCE; where to send the user.

        Raises UpstreamFailure; nothing is stored then.
        """
        upstream = self.upstream(pending.remaining[0])
        state = state_prefix + self._services.new_handle()
        leg = replace(
            pending,
            upstream=upstream.name,
            remaining=pending.remaining[1:],
            nonce=self._services.new_handle(),
            code_verifier=self._services.new_handle(),
        )
        url = await upstream.login_url(
            LoginRequest(
                redirect_uri=self.callback_uri(upstream.name),
                state=state,
                nonce=leg.nonce,
                code_challenge=pkce.challenge_of(leg.code_verifier),
                choose_account=leg.asks_for_account,
                more_scopes=of_upstream(upstream.name, leg.request.upstream_scopes),
            )
        )
        await self._services.pending_sign_ins.put(
            hash_of(state),
            stage,
            hash_of(browser),
            leg,
            expires_at=int(self._services.clock()) + PENDING_SIGN_IN_SECONDS,
        )
        return url
