"""What clients discover: RFC 8414 and OpenID Connect Discovery documents, without nulls."""

from typing import Any, Final
from urllib.parse import urlsplit

from authserver.clients.authentication import AUTH_METHODS
from authserver.oauth.pkce import METHOD
from authserver.oauth.resources import ResourceMap
from authserver.oauth.scopes import OFFLINE_ACCESS
from authserver.oauth.scopes import OPENID as OPENID_SCOPE
from authserver.storage.records import GRANT_TYPES
from authserver.tokens.algorithms import OURS
from authserver.tokens.id_tokens import CLAIMS
from authserver.tokens.signing_keys import SigningKeys

# draft-ietf-oauth-refresh-token-expiration: our token answers tell both ends.
EXPIRATION_TYPES: Final = ("authorization", "token_timeout")
OAUTH, OPENID = "oauth-authorization-server", "openid-configuration"


class MetadataDocument:
    """What this authorization server says of itself; the same for both well-known names."""

    def __init__(
        self,
        issuer: str,
        resources: ResourceMap,
        keys: SigningKeys,
        *,
        registration: bool,
        documents: bool,
    ) -> None:
        self._issuer, self._resources, self._keys = issuer, resources, keys
        self._registration, self._documents = registration, documents

    def handle(self) -> dict[str, Any]:
        issuer = self._issuer
        document: dict[str, Any] = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/oauth/authorize",
            "token_endpoint": f"{issuer}/oauth/token",
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "revocation_endpoint": f"{issuer}/oauth/revoke",
            "introspection_endpoint": f"{issuer}/oauth/introspect",
            "userinfo_endpoint": f"{issuer}/oauth/userinfo",
            "scopes_supported": [*self._resources.scopes(), OFFLINE_ACCESS, OPENID_SCOPE],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": list(GRANT_TYPES),
            "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
            "token_endpoint_auth_signing_alg_values_supported": list(OURS),
            "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
            "revocation_endpoint_auth_signing_alg_values_supported": list(OURS),
            "introspection_endpoint_auth_methods_supported": [
                m for m in AUTH_METHODS if m != "none"
            ],
            "introspection_endpoint_auth_signing_alg_values_supported": list(OURS),
            "claims_supported": list(CLAIMS),
            "client_id_metadata_document_supported": self._documents,
            "code_challenge_methods_supported": [METHOD],
            "authorization_response_iss_parameter_supported": True,
            "refresh_token_expiration_types_supported": list(EXPIRATION_TYPES),
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self._keys.algorithms(),
        }
        if self._registration:
            document["registration_endpoint"] = f"{issuer}/oauth/register"
        return document


def well_known_paths(issuer: str, name: str) -> tuple[str, ...]:
    """Where clients look for the document `name` of `issuer`: path-inserted, then path-appended."""
    path = urlsplit(issuer).path
    return tuple(dict.fromkeys((f"/.well-known/{name}{path}", f"{path}/.well-known/{name}")))
