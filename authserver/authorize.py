"""The authorization endpoint: everything that can be refused is refused before anyone is sent on.

Until client and redirect URI are known to belong together an error is a page of ours; after that
it goes back to the client (RFC 6749 section 4.1.2.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from authserver import pkce, redirects
from authserver.clients import ClientDirectory
from authserver.errors import (
    InvalidRequest,
    InvalidTarget,
    ProtocolError,
    Redirected,
    ShownToUser,
    UnsupportedResponseType,
)
from authserver.handles import NewHandle, hash_of
from authserver.resources import Resource, ResourceMap
from authserver.storage.records import AuthorizationRequest, Client, Stage, Transaction
from authserver.storage.transactions import Transactions
from chassis.clock import Clock

TRANSACTION_SECONDS: Final = 600
_LONGEST_STATE: Final = 4096
OFFLINE_ACCESS: Final = "offline_access"


@dataclass(frozen=True)
class Question:
    """What the consent page asks, and the handle that its answer must bring back."""

    transaction: str
    client: Client
    redirect_uri: str
    resource: Resource
    scope: str


class Authorize:
    """GET /oauth/authorize."""

    def __init__(
        self,
        clients: ClientDirectory,
        resources: ResourceMap,
        transactions: Transactions,
        clock: Clock,
        new_handle: NewHandle,
    ) -> None:
        self._clients, self._resources, self._transactions = clients, resources, transactions
        self._clock, self._new_handle = clock, new_handle

    async def ask(self, fields: Mapping[str, str], browser: str) -> Question:
        """Check a request and remember it for `browser`. Raises ShownToUser or Redirected."""
        client = await self._client(fields)
        redirect_uri = _redirect_uri(fields, client)
        try:
            resource = self._resource(fields)
            request = _request(fields, client, redirect_uri, resource)
        except ProtocolError as refusal:
            if not (self._clients.is_configured(client) or _is_local(redirect_uri)):
                # Anyone may register a web site; it must not borrow our name to send people there.
                raise ShownToUser(refusal.reason, _BAD_REQUEST) from None
            raise Redirected(refusal, redirect_uri, fields.get("state")) from None
        handle = self._new_handle()
        await self._transactions.put(
            hash_of(handle),
            Stage.CONSENT,
            hash_of(browser),
            Transaction(request, remaining=resource.upstreams),
            expires_at=int(self._clock()) + TRANSACTION_SECONDS,
        )
        return Question(handle, client, redirect_uri, resource, request.scope)

    async def _client(self, fields: Mapping[str, str]) -> Client:
        client_id = fields.get("client_id")
        try:
            client = await self._clients.get(client_id, self._clock()) if client_id else None
        except ProtocolError as refusal:
            status = 400 if refusal.status_code == 401 else refusal.status_code
            raise ShownToUser(refusal.reason, _NO_DOCUMENT, status=status) from None
        if client is None:
            raise ShownToUser("unknown_client", _UNKNOWN_CLIENT)
        return client

    def _resource(self, fields: Mapping[str, str]) -> Resource:
        asked = fields.get("resource")
        resource = self._resources.asked_for(asked) if asked else None
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
    return redirects.is_local_application(redirect_uri)


def _redirect_uri(fields: Mapping[str, str], client: Client) -> str:
    redirect_uri = fields.get("redirect_uri", "")
    if not redirects.matches(redirect_uri, client.redirect_uris):
        raise ShownToUser("unregistered_redirect_uri", _BAD_REDIRECT)
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
    if state is not None and len(state) > _LONGEST_STATE:
        raise InvalidRequest("state_too_long", "state is longer than 4096 characters")
    return AuthorizationRequest(
        client.client_id,
        redirect_uri,
        state,
        challenge,
        resource.url,
        granted_scope(fields.get("scope"), resource),
    )


def granted_scope(asked: str | None, resource: Resource) -> str:
    """What is granted of what was asked: unknown scopes are dropped, not refused.

    A request without a scope gets all scopes of the resource (RFC 6749 section 3.3).
    """
    if asked is None:
        return " ".join(resource.scopes)
    grantable = (*resource.scopes, OFFLINE_ACCESS)
    return " ".join(dict.fromkeys(scope for scope in asked.split(" ") if scope in grantable))
