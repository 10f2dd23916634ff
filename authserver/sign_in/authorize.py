"""The authorization endpoint: everything that can be refused is refused before anyone is sent on.

Until client and redirect URI are known to belong together an error is a page of ours; after that
it goes back to the client (RFC 6749 section 4.1.2.1).
"""

import hashlib
import json
from collections.abc import Mapping

from msgspec.structs import asdict, replace

from authserver.audit import Outcome
from authserver.clients.directory import ClientDirectory
from authserver.connections.freshness import asked_scope
from authserver.handles import hash_of
from authserver.oauth import redirect_uris
from authserver.oauth.errors import (
    ConsentRequired,
    ErrorRedirect,
    InvalidRequest,
    LoginRequired,
    ProtocolError,
    UserFacingError,
)
from authserver.oauth.resources import Resource
from authserver.oauth.scopes import upstream_scope
from authserver.sign_in.authorization_request import (
    BAD_REQUEST,
    read_client,
    read_redirect_uri,
    read_request,
    read_resource,
)
from authserver.sign_in.browser_session import BrowserLogin, asked_at_sign_in
from authserver.sign_in.next_step import NextStep, Redirect
from authserver.sign_in.services import SignInServices, subject_of
from authserver.sign_in.upstream_login import PENDING_SIGN_IN_SECONDS
from authserver.storage.browser_sessions import SignedIn
from authserver.storage.consents import Consents
from authserver.storage.records import Account, AuthorizationRequest, Client, PendingSignIn, Stage
from authserver.values import Value


class ConsentPrompt(Value, frozen=True):
    """What the consent page asks, and the handle that its answer must bring back."""

    pending: str
    client: Client
    redirect_uri: str
    resource: Resource
    scope: str
    signed_in: bool
    account: Account
    upstream_scopes: tuple[tuple[str, str], ...] = ()


class Authorize:
    """GET /oauth/authorize."""

    def __init__(
        self,
        services: SignInServices,
        clients: ClientDirectory,
        browser_login: BrowserLogin,
        consents: Consents,
        next_step: NextStep,
    ) -> None:
        self._services, self._clients, self._browser_login = services, clients, browser_login
        self._consents, self._next_step = consents, next_step

    async def handle(
        self, fields: Mapping[str, str], browser: str, session: str | None, source: str
    ) -> ConsentPrompt | Redirect:
        """Check a request and remember it for `browser`, or go on where nothing is to be asked.

        `session` is the handle of a signed-in browser, `source` where it calls from. Raises
        UserFacingError or ErrorRedirect.
        """
        client = await read_client(fields, self._clients, self._services.clock(), source)
        redirect_uri = read_redirect_uri(fields, client)
        try:
            resource = read_resource(fields, self._services.resources)
            request = read_request(fields, client, redirect_uri, resource, self._services.upstreams)
            return await self._prompt_or_continue(
                fields, client, resource, request, browser, session
            )
        except ProtocolError as refusal:
            if not (
                self._clients.is_configured(client)
                or redirect_uris.is_local_application(redirect_uri)
            ):
                # Anyone may register a web site; it must not borrow our name to send people there.
                raise UserFacingError(refusal.reason, BAD_REQUEST) from None
            raise ErrorRedirect(
                refusal, redirect_uri, fields.get("state"), consented=False
            ) from None

    async def _prompt_or_continue(
        self,
        fields: Mapping[str, str],
        client: Client,
        resource: Resource,
        request: AuthorizationRequest,
        browser: str,
        session: str | None,
    ) -> ConsentPrompt | Redirect:
        prompts = frozenset(fields.get("prompt", "").split(" "))
        visitor = await self._browser_login.user_of(session)
        if visitor is not None and self._must_sign_in_again(fields, prompts, visitor):
            visitor = None
        missing = await self._browser_login.upstreams_to_visit(
            visitor, resource, request.upstream_scopes
        )
        pending = new_sign_in(request, resource, visitor, missing)
        question_hash = self._consent_fingerprint(client, resource, request)
        remembered = "consent" not in prompts and await self._remembers(
            pending.user_id, question_hash
        )
        if "none" in prompts:
            _check_silent(prompts, missing=bool(missing), remembered=remembered)
        if remembered:
            self._services.audit.consent(subject_of(pending), Outcome.SUCCESS, "remembered")
            return await self._next_step.run(pending, browser)
        return await self._prompt(
            replace(pending, question_hash=question_hash), client, resource, browser
        )

    async def _remembers(self, user_id: str, question_hash: str) -> bool:
        """Whether this user said yes before. Without a user, another may come from upstream."""
        if not user_id or not question_hash:
            return False
        return await self._consents.remembers(user_id, question_hash, self._services.clock())

    async def _prompt(
        self, pending: PendingSignIn, client: Client, resource: Resource, browser: str
    ) -> ConsentPrompt:
        handle, request = self._services.new_handle(), pending.request
        await self._services.pending_sign_ins.put(
            hash_of(handle),
            Stage.CONSENT,
            hash_of(browser),
            pending,
            expires_at=int(self._services.clock()) + PENDING_SIGN_IN_SECONDS,
        )
        return ConsentPrompt(
            handle,
            client,
            request.redirect_uri,
            resource,
            request.scope,
            signed_in=bool(pending.user_id),
            account=pending.account,
            upstream_scopes=request.upstream_scopes,
        )

    def _must_sign_in_again(
        self, fields: Mapping[str, str], prompts: frozenset[str], visitor: SignedIn
    ) -> bool:
        max_age = fields.get("max_age", "")
        too_old = max_age.isdigit() and self._services.clock() - visitor.signed_in_at > int(max_age)
        return too_old or not prompts.isdisjoint({"login", "select_account"})

    def _consent_fingerprint(
        self, client: Client, resource: Resource, request: AuthorizationRequest
    ) -> str:
        """A hash of all that the consent page says, so that a remembered yes answers nothing else.

        Empty for an application on the user's device: whatever runs there could use its name
        (RFC 8252 section 8.6), so it is always asked about.
        """
        if redirect_uris.is_local_application(request.redirect_uri):
            return ""
        described = asdict(replace(client, secret_hash=None))
        reached = {
            name: asked_scope(self._services.upstreams[name])
            if name in self._services.upstreams
            else ""
            for name in resource.upstreams
        }
        shown = [described, request.redirect_uri, sorted(request.scope.split()), reached]
        shown += [resource.url, str(resource.owner)]
        if resource.when_needed:
            shown.append(sorted(resource.when_needed))
        if request.upstream_scopes:
            shown.append(sorted(upstream_scope(*one) for one in request.upstream_scopes))
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def _check_silent(prompts: frozenset[str], *, missing: bool, remembered: bool) -> None:
    """`prompt=none` (OpenID Connect Core section 3.1.2.1): no page may be shown."""
    if len(prompts) > 1:
        raise InvalidRequest("prompt_none_and_more", "prompt=none goes with no other value")
    if missing:
        raise LoginRequired("prompt_none")
    if not remembered:
        raise ConsentRequired("prompt_none")


def new_sign_in(
    request: AuthorizationRequest,
    resource: Resource,
    visitor: SignedIn | None,
    missing: tuple[str, ...],
) -> PendingSignIn:
    """A transaction for a visitor, who counts only where the first upstream is not missing."""
    if visitor is None or missing[:1] == resource.upstreams[:1]:
        return PendingSignIn(request, remaining=asked_at_sign_in(resource, request))
    return PendingSignIn(
        request,
        remaining=missing,
        user_id=visitor.user_id,
        signed_in_at=visitor.signed_in_at,
        account=visitor.account,
    )
