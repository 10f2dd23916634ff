"""The authorization endpoint: everything that can be refused is refused before anyone is sent on.

Until client and redirect URI are known to belong together an error is a page of ours; after that
it goes back to the client (RFC 6749 section 4.1.2.1).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from authserver.clients.directory import ClientDirectory
from authserver.handles import NewHandle, hash_of
from authserver.oauth import pkce, redirect_uris
from authserver.oauth.errors import (
    ConsentRequired,
    ErrorRedirect,
    InvalidRequest,
    InvalidTarget,
    LoginRequired,
    ProtocolError,
    UnsupportedResponseType,
    UserFacingError,
)
from authserver.oauth.resources import Resource, ResourceMap
from authserver.oauth.scopes import granted_scope
from authserver.sign_in.browser_session import BrowserLogin, asked_scope
from authserver.sign_in.next_step import NextStep, Redirect
from authserver.sign_in.upstream_login import PENDING_SIGN_IN_SECONDS
from authserver.storage.browser_sessions import SignedIn
from authserver.storage.consents import Consents
from authserver.storage.pending_sign_ins import PendingSignIns
from authserver.storage.records import AuthorizationRequest, Client, PendingSignIn, Stage
from authserver.upstream.contract import Upstreams
from chassis.clock import Clock

_MAX_STATE_LENGTH: Final = 4096
_MAX_NONCE_LENGTH: Final = 512


@dataclass(frozen=True)
class ConsentPrompt:
    """What the consent page asks, and the handle that its answer must bring back."""

    pending: str
    client: Client
    redirect_uri: str
    resource: Resource
    scope: str
    signed_in: bool


class Authorize:
    """GET /oauth/authorize."""

    def __init__(
        self,
        clients: ClientDirectory,
        resources: ResourceMap,
        upstreams: Upstreams,
        pending_sign_ins: PendingSignIns,
        visitors: BrowserLogin,
        consents: Consents,
        next_step: NextStep,
        clock: Clock,
        new_handle: NewHandle,
    ) -> None:
        self._clients, self._resources, self._upstreams = clients, resources, upstreams
        self._pending_sign_ins, self._visitors, self._consents = (
            pending_sign_ins,
            visitors,
            consents,
        )
        self._next_step, self._clock, self._new_handle = next_step, clock, new_handle

    async def handle(
        self, fields: Mapping[str, str], browser: str, session: str | None
    ) -> ConsentPrompt | Redirect:
        """Check a request and remember it for `browser`, or go on where nothing is to be asked.

        `session` is the handle of a signed-in browser. Raises UserFacingError or Redirected.
        """
        client = await self._client(fields)
        redirect_uri = _redirect_uri(fields, client)
        try:
            resource = self._resource(fields)
            request = _request(fields, client, redirect_uri, resource)
            return await self._prompt_or_continue(
                fields, client, resource, request, browser, session
            )
        except ProtocolError as refusal:
            if not (self._clients.is_configured(client) or _is_local(redirect_uri)):
                # Anyone may register a web site; it must not borrow our name to send people there.
                raise UserFacingError(refusal.reason, _BAD_REQUEST) from None
            raise ErrorRedirect(refusal, redirect_uri, fields.get("state")) from None

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
        visitor = await self._visitors.user_of(session)
        if visitor is not None and self._must_sign_in_again(fields, prompts, visitor):
            visitor = None
        missing = await self._visitors.upstreams_to_visit(visitor, resource)
        pending = new_sign_in(request, resource, visitor, missing)
        question_hash = self._consent_fingerprint(client, resource, request)
        remembered = (
            "consent" not in prompts
            and pending.user_id != ""  # else another user may come back from upstream
            and question_hash != ""
            and await self._consents.remembers(pending.user_id, question_hash, self._clock())
        )
        asks = missing or not remembered
        if "none" in prompts and asks and self._clients.is_configured(client):
            # Others asked for `none` get the page: nobody is sent on unseen for a stranger.
            raise LoginRequired("prompt_none") if missing else ConsentRequired("prompt_none")
        if remembered:
            return await self._next_step.run(pending, browser)
        handle = self._new_handle()
        await self._pending_sign_ins.put(
            hash_of(handle),
            Stage.CONSENT,
            hash_of(browser),
            replace(pending, question_hash=question_hash),
            expires_at=int(self._clock()) + PENDING_SIGN_IN_SECONDS,
        )
        return ConsentPrompt(
            handle,
            client,
            request.redirect_uri,
            resource,
            request.scope,
            signed_in=bool(pending.user_id),
        )

    def _must_sign_in_again(
        self, fields: Mapping[str, str], prompts: frozenset[str], visitor: SignedIn
    ) -> bool:
        max_age = fields.get("max_age", "")
        too_old = max_age.isdigit() and self._clock() - visitor.signed_in_at > int(max_age)
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
            name: asked_scope(self._upstreams[name]) if name in self._upstreams else ""
            for name in resource.upstreams
        }
        said = [described, request.redirect_uri, sorted(request.scope.split()), reached]
        said += [resource.url, str(resource.owner)]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    async def _client(self, fields: Mapping[str, str]) -> Client:
        client_id = fields.get("client_id")
        try:
            client = await self._clients.get(client_id, self._clock()) if client_id else None
        except ProtocolError as refusal:
            status = 400 if refusal.status_code == 401 else refusal.status_code
            raise UserFacingError(refusal.reason, _NO_DOCUMENT, status=status) from None
        if client is None:
            raise UserFacingError("unknown_client", _UNKNOWN_CLIENT)
        return client

    def _resource(self, fields: Mapping[str, str]) -> Resource:
        asked = fields.get("resource")
        resource = self._resources.resolve(asked) if asked else None
        if resource is None:
            raise InvalidTarget("unknown_resource" if asked else "no_resource", _NO_RESOURCE)
        return resource


_UNKNOWN_CLIENT: Final = (
    "The application that sent you here is not registered with this server (any more). "
    "Remove its stored login for this server in the application, and connect again."
)
_NO_DOCUMENT: Final = (
    "The application that sent you here is known by a description on its own web site, and that "
    "description cannot be read or cannot be accepted. Try again later, or ask its maker."
)
_BAD_REDIRECT: Final = (
    "The application that sent you here asked for the answer at an address that it has not "
    "registered. To protect your account, the sign-in stops here."
)
_BAD_REQUEST: Final = (
    "The application that sent you here made a request that this server cannot accept. "
    "Nothing was signed in and nothing was shared."
)
_NO_RESOURCE: Final = "resource must name one MCP server known here"


def _is_local(redirect_uri: str) -> bool:
    return redirect_uris.is_local_application(redirect_uri)


def _redirect_uri(fields: Mapping[str, str], client: Client) -> str:
    redirect_uri = fields.get("redirect_uri", "")
    if not redirect_uris.matches(redirect_uri, client.redirect_uris):
        raise UserFacingError("unregistered_redirect_uri", _BAD_REDIRECT)
    return redirect_uri


def _request(
    fields: Mapping[str, str], client: Client, redirect_uri: str, resource: Resource
) -> AuthorizationRequest:
    if "request" in fields or "request_uri" in fields:
        raise InvalidRequest("request_object", "request objects are not supported")
    if fields.get("response_type") != "code":
        raise UnsupportedResponseType("response_type", "response_type must be code")
    if fields.get("response_mode", "query") != "query":
        raise InvalidRequest("response_mode", "response_mode must be query")
    challenge = fields.get("code_challenge", "")
    if fields.get("code_challenge_method") != pkce.METHOD or not pkce.is_challenge(challenge):
        raise InvalidRequest("pkce", "PKCE with code_challenge_method S256 is required")
    state = fields.get("state")
    if state is not None and len(state) > _MAX_STATE_LENGTH:
        raise InvalidRequest("state_too_long", "state is longer than 4096 characters")
    nonce = fields.get("nonce")
    if nonce is not None and len(nonce) > _MAX_NONCE_LENGTH:
        raise InvalidRequest("nonce_too_long", "nonce is longer than 512 characters")
    return AuthorizationRequest(
        client.client_id,
        redirect_uri,
        state,
        challenge,
        resource.url,
        granted_scope(fields.get("scope"), resource),
        nonce,
        resource.owner,
    )


def new_sign_in(
    request: AuthorizationRequest,
    resource: Resource,
    visitor: SignedIn | None,
    missing: tuple[str, ...],
) -> PendingSignIn:
    """A transaction for a visitor, who counts only where the first upstream is not missing."""
    if visitor is None or missing[:1] == resource.upstreams[:1]:
        return PendingSignIn(request, remaining=resource.upstreams)
    return PendingSignIn(
        request,
        remaining=missing,
        user_id=visitor.user_id,
        signed_in_at=visitor.signed_in_at,
    )
