"""Dynamic client registration (RFC 7591): open, limited, and never trusted without consent."""

from collections.abc import Mapping
from typing import Any, Final

from joserfc.errors import JoseError

from authserver.audit import Audit, Outcome, Subject
from authserver.clients.authentication import AUTH_METHODS
from authserver.handles import NewHandle, hash_of
from authserver.oauth import redirect_uris
from authserver.oauth.errors import (
    InvalidClientMetadata,
    InvalidRedirectUri,
    ProtocolError,
)
from authserver.rate_limit import RateLimit, SharedRateLimit
from authserver.storage.clients import Clients
from authserver.storage.records import GRANT_TYPES, Client
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("registration")

_MAX_REDIRECTS: Final = 10
_MAX_NAME_LENGTH: Final = 128
# Checked by Authlib; every other member has a reader of its own below, or is ignored.
_CHECKED_BY_FORM: Final = frozenset(
    {
        "client_uri", "contacts", "logo_uri", "policy_uri", "response_types", "scope",
        "software_id", "software_version", "tos_uri",
    }
)  # fmt: skip
UNUSED_SECONDS: Final = 86400
SECRET_METHODS: Final = ("client_secret_basic", "client_secret_post")


class Registration:
    """POST /oauth/register."""

    def __init__(
        self,
        clients: Clients,
        per_source: RateLimit,
        overall: SharedRateLimit,
        audit: Audit,
        clock: Clock,
        new_handle: NewHandle,
        *,
        max_unused: int,
    ) -> None:
        self._clients, self._per_source, self._overall = clients, per_source, overall
        self._audit = audit
        self._clock, self._new_handle, self._max_unused = clock, new_handle, max_unused

    async def handle(self, metadata: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Store a client; the 201 body (section 3.2.1). Raises ProtocolError.

        Unknown members are ignored, defaults filled in and reported, nothing is null. The client
        is forgotten after a day unless it gets a token, and earlier where too many wait.
        """
        now = int(self._clock())
        self._per_source.take(source, now)
        self._overall.take(source, now)
        try:
            client, secret = self._client(metadata)
        except ProtocolError as refusal:
            self._audit.registration(Subject(), Outcome.REFUSED, refusal.reason)
            raise
        await self._clients.add(
            client, now=now, expires_at=now + UNUSED_SECONDS, max_unused=self._max_unused
        )
        self._audit.registration(Subject(client_id=client.client_id), Outcome.SUCCESS)
        return _registered(client, secret, now)

    def _client(self, metadata: Mapping[str, Any]) -> tuple[Client, str | None]:
        _check_form(metadata)
        method = metadata.get("token_endpoint_auth_method", "client_secret_basic")
        if method not in AUTH_METHODS:
            raise InvalidClientMetadata("auth_method", "unknown token_endpoint_auth_method")
        secret = self._new_handle() if method in SECRET_METHODS else None
        client_id = f"tw-{self._new_handle()}"
        client = Client(
            client_id,
            _name(metadata) or client_id[:12],
            _redirect_uris(metadata),
            (method,),
            _grant_types(metadata),
            "native" if metadata.get("application_type") == "native" else "web",
            hash_of(secret) if secret is not None else None,
            *_keys(metadata, method),
        )
        return client, secret


def _check_form(metadata: Mapping[str, Any]) -> None:
    """Check the members that we only pass on, one by one, to name the one that is wrong."""
    # With the first registration, which takes a hundredth of a second longer: no start needs it.
    from authlib.oauth2.rfc7591 import ClientMetadataClaims

    for member in metadata.keys() & _CHECKED_BY_FORM:
        claims = ClientMetadataClaims(
            {member: metadata[member]},
            {},
            ClientMetadataClaims.get_claims_options({"response_types_supported": ["code"]}),
        )
        try:
            claims.validate()
        except (JoseError, ValueError, TypeError, AttributeError):
            raise InvalidClientMetadata(
                f"metadata_{member}", f"{member} is not acceptable"
            ) from None


def _redirect_uris(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the URIs that we can serve; the response says which (RFC 7591 section 3.2.1).

    One that can never be used costs the client not the others. Raises InvalidRedirectUri where
    none is left, with the place and the fault of the first.
    """
    uris = metadata.get("redirect_uris")
    if not isinstance(uris, list) or not 0 < len(uris) <= _MAX_REDIRECTS:
        raise InvalidRedirectUri("redirect_uris", "redirect_uris must hold 1 to 10 URIs")
    refused: dict[int, str] = {}
    for place, uri in enumerate(uris):
        if not isinstance(uri, str):
            raise InvalidRedirectUri("redirect_uris", f"redirect_uris[{place}] is not a text")
        try:
            redirect_uris.check_registrable(uri)
        except redirect_uris.InvalidRedirect as fault:
            refused[place] = str(fault)
    if len(refused) == len(uris):
        raise InvalidRedirectUri("redirect_uri", f"redirect_uris[0]: {refused[0]}")
    if refused:
        _log.info("redirect_uris_left_out", places=tuple(refused))
    return tuple(uri for place, uri in enumerate(uris) if place not in refused)


def _keys(metadata: Mapping[str, Any], method: str) -> tuple[dict[str, Any] | None, str | None]:
    """A signing client's `jwks` or `jwks_uri`, exactly one; the URI is not fetched here."""
    jwks, jwks_uri = metadata.get("jwks"), metadata.get("jwks_uri")
    if method != "private_key_jwt":
        return None, None
    if (jwks is None) == (jwks_uri is None):
        raise InvalidClientMetadata("keys", "private_key_jwt needs either jwks or jwks_uri")
    if jwks is not None and not (isinstance(jwks, dict) and isinstance(jwks.get("keys"), list)):
        raise InvalidClientMetadata("jwks", "jwks must be a JWK Set")
    if jwks_uri is not None and not isinstance(jwks_uri, str):
        raise InvalidClientMetadata("jwks_uri", "jwks_uri must be a text")
    return jwks, jwks_uri


def _grant_types(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    grant_types = metadata.get("grant_types", ["authorization_code"])
    if not isinstance(grant_types, list) or "authorization_code" not in grant_types:
        raise InvalidClientMetadata("grant_types", "grant_types must hold authorization_code")
    return tuple(grant for grant in GRANT_TYPES if grant in grant_types)


def _name(metadata: Mapping[str, Any]) -> str:
    """The name shown at consent: what is printable of it, cut."""
    name = metadata.get("client_name", "")
    if not isinstance(name, str):
        raise InvalidClientMetadata("client_name", "client_name must be a text")
    return "".join(part for part in name if part.isprintable())[:_MAX_NAME_LENGTH].strip()


def _registered(client: Client, secret: str | None, now: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "client_id": client.client_id,
        "client_id_issued_at": now,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "grant_types": list(client.grant_types),
        "response_types": ["code"],
        "token_endpoint_auth_method": client.auth_methods[0],
        "application_type": client.application_type,
    }
    keys = {"jwks": client.jwks, "jwks_uri": client.jwks_uri}
    answer |= {name: value for name, value in keys.items() if value is not None}
    if secret is not None:
        answer |= {"client_secret": secret, "client_secret_expires_at": 0}
    return answer
