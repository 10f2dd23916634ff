"""The answer to our consent page. Before a yes, nothing of a request ever reaches an upstream."""

from collections.abc import Mapping

from msgspec.structs import replace

from authserver.audit import Outcome
from authserver.handles import hash_of
from authserver.oauth.errors import AccessDenied, ErrorRedirect, ProtocolError, UserFacingError
from authserver.oauth.scopes import upstream_scope
from authserver.sign_in.browser_session import BrowserLogin, asked_at_sign_in
from authserver.sign_in.next_step import NextStep, Redirect
from authserver.sign_in.services import SignInServices, outcome_of, subject_of
from authserver.storage.records import NO_ACCOUNT, PendingSignIn, Stage
from authserver.storage.sessions import Sessions

ALLOW, ALLOW_OTHER, DENY = "allow", "allow_other", "deny"

NOT_YOUR_SIGN_IN = (
    "This sign-in was started in another browser, was already answered, took too long, or this "
    "browser sends no cookies here. Allow cookies for this site, go back to your application and "
    "connect again."
)


class Consent:
    """POST /oauth/consent."""

    def __init__(
        self,
        services: SignInServices,
        browser_login: BrowserLogin,
        sessions: Sessions,
        next_step: NextStep,
    ) -> None:
        self._services, self._browser_login = services, browser_login
        self._sessions, self._next_step = sessions, next_step

    async def handle(
        self,
        fields: Mapping[str, str],
        browser: str | None,
        session: str | None,
        fetch_site: str | None,
    ) -> Redirect:
        """Where to send the user after a yes. Raises Redirected after a no, else UserFacingError.

        The form's handle belongs to one transaction and the cookie to one browser; together they
        are the defence against a forged answer. `Sec-Fetch-Site`, where a browser sends it, is
        the second look: a page under `Referrer-Policy: no-referrer` has no usable Origin.
        """
        decision, handle = fields.get("decision"), fields.get("transaction")
        if fetch_site not in (None, "same-origin"):
            raise UserFacingError("consent_from_another_site", NOT_YOUR_SIGN_IN, status=403)
        if decision not in (ALLOW, ALLOW_OTHER, DENY) or handle is None or browser is None:
            raise UserFacingError("consent_incomplete", NOT_YOUR_SIGN_IN)
        pending = await self._take(handle, browser)
        request = pending.request
        audit, subject = self._services.audit, subject_of(pending)
        if decision == DENY:
            audit.consent(subject, Outcome.REFUSED, "user_denied")
            await self._remember_declined(pending, session)
            raise ErrorRedirect(AccessDenied("user_denied"), request.redirect_uri, request.state)
        audit.consent(subject, Outcome.SUCCESS)
        if decision == ALLOW_OTHER:
            pending = replace(self._signed_out(pending), asks_for_account=True)
        elif pending.user_id and not await self._still_there(pending, session):
            pending = self._signed_out(pending)
        try:
            return await self._next_step.run(pending, browser)
        except ProtocolError as refusal:
            upstream = pending.remaining[0] if pending.remaining else ""
            audit.sign_in(subject_of(pending, upstream), outcome_of(refusal), refusal.reason)
            raise ErrorRedirect(refusal, request.redirect_uri, request.state, upstream) from None

    async def _take(self, handle: str, browser: str) -> PendingSignIn:
        pending = await self._services.pending_sign_ins.take(
            hash_of(handle),
            Stage.CONSENT,
            hash_of(browser),
            upstream="",
            now=self._services.clock(),
        )
        if pending is None:
            raise UserFacingError("no_such_transaction", NOT_YOUR_SIGN_IN)
        return pending

    async def _remember_declined(self, pending: PendingSignIn, session: str | None) -> None:
        """What was asked for beyond the usual: the client's sessions do not ask for it again."""
        request, visitor = pending.request, await self._browser_login.user_of(session)
        if visitor is not None and request.upstream_scopes:
            declined = [upstream_scope(*one) for one in request.upstream_scopes]
            await self._sessions.decline_scopes(
                visitor.user_id, request.client_id, request.resource, declined
            )

    async def _still_there(self, pending: PendingSignIn, session: str | None) -> bool:
        """Whether who answers is who the page was made for."""
        visitor = await self._browser_login.user_of(session)
        return visitor is not None and visitor.user_id == pending.user_id

    def _signed_out(self, pending: PendingSignIn) -> PendingSignIn:
        resource = self._services.resources.get(pending.request.resource)
        return replace(
            pending,
            remaining=asked_at_sign_in(resource, pending.request) if resource else (),
            user_id="",
            signed_in_at=0,
            account=NO_ACCOUNT,
        )
