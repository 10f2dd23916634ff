"""Validation of an authorization request: what may be asked, of whom, and for which resource.

Until client and redirect URI are known to belong together an error is a page of ours; after that
it is a ProtocolError, which the caller may redirect (RFC 6749 section 4.1.2.1).
"""

from collections.abc import Mapping
from typing import Final

from authserver.clients.directory import ClientDirectory
from authserver.oauth import pkce, redirect_uris
from authserver.oauth.errors import (
    InvalidRequest,
    InvalidTarget,
    ProtocolError,
    UnsupportedResponseType,
    UserFacingError,
)
from authserver.oauth.resources import Resource, ResourceMap
from authserver.oauth.scopes import granted_scope, requested_upstream_scopes
from authserver.storage.records import AuthorizationRequest, Client
from authserver.upstream.contract import Upstreams

_MAX_STATE_LENGTH: Final = 4096
_MAX_NONCE_LENGTH: Final = 512

_UNKNOWN_CLIENT: Final = (
    "The application that sent you here is not registered with this server (any more). "
    "Remove its stored login for this server in the application, and connect again."
)
_NO_CLIENT: Final = (
    "This address is for applications, and the request names none. "
    "To connect, add the MCP server in your application."
)
_NO_DOCUMENT: Final = (
    "The application that sent you here is known by a description on its own web site, and that "
    "description cannot be read or cannot be accepted. Try again later, or ask its maker."
)
_BAD_REDIRECT: Final = (
    "The application that sent you here asked for the answer at an address that it has not "
    "registered. To protect your account, the sign-in stops here."
)
BAD_REQUEST: Final = (
    "The application that sent you here made a request that this server cannot accept. "
    "Nothing was signed in and nothing was shared."
)
_NO_RESOURCE: Final = "resource must name one MCP server known here"


async def read_client(
    fields: Mapping[str, str], clients: ClientDirectory, now: float, source: str
) -> Client:
    """The client that a request names. Raises UserFacingError."""
    client_id = fields.get("client_id")
    if client_id is None:
        raise UserFacingError("no_client_id", _NO_CLIENT)
    try:
        client = await clients.get(client_id, now, source=source)
    except ProtocolError as refusal:
        status = 400 if refusal.status_code == 401 else refusal.status_code
        raise UserFacingError(refusal.reason, _NO_DOCUMENT, status=status) from None
    if client is None:
        raise UserFacingError("unknown_client", _UNKNOWN_CLIENT)
    return client


def read_redirect_uri(fields: Mapping[str, str], client: Client) -> str:
    """The redirect URI, which the client has registered. Raises UserFacingError."""
    redirect_uri = fields.get("redirect_uri", "")
    known = redirect_uris.matches(redirect_uri, client.redirect_uris)
    # One that was registered under rules of before must not lead to where no new one may.
    if not known or not redirect_uris.is_registrable(redirect_uri):
        raise UserFacingError("unregistered_redirect_uri", _BAD_REDIRECT)
    return redirect_uri


def read_resource(fields: Mapping[str, str], resources: ResourceMap) -> Resource:
    """The resource that a request names (RFC 8707). Raises InvalidTarget."""
    requested = fields.get("resource")
    resource = resources.resolve(requested) if requested else None
    if resource is None:
        raise InvalidTarget("unknown_resource" if requested else "no_resource", _NO_RESOURCE)
    return resource


def read_request(
    fields: Mapping[str, str],
    client: Client,
    redirect_uri: str,
    resource: Resource,
    upstreams: Upstreams,
) -> AuthorizationRequest:
    """The rest of a request (RFC 6749 section 4.1.1, RFC 7636). Raises ProtocolError."""
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
        resource.upstreams,
        requested_upstream_scopes(fields.get("scope"), _beyond(resource, upstreams)),
        resource.owner_uid,
    )


def _beyond(resource: Resource, upstreams: Upstreams) -> dict[str, tuple[str, ...]]:
    """What clients may ask for at each upstream of a resource; what we ask anyway can be missing
    too, where the user did not grant all of it. At an exchanged one nobody can be asked.
    """
    return {
        name: (*upstreams[name].scopes, *upstreams[name].step_up_scopes)
        for name in resource.upstreams
        if name in upstreams and name not in resource.exchanged
    }
