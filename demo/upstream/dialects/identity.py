"""Identity providers: their tokens are found by OpenID Connect discovery, but for one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from demo.upstream.dialects.behaviour import FOREVER, Answer, Behaviour, standard

_HOUR: Final = 3600
_DAY: Final = 86400

# One revocation ends all that the user gave to the client, whichever token it names.
_GOOGLE: Final = Behaviour(
    source="https://developers.google.com/identity/protocols/oauth2/web-server",
    issuer="accounts.google.com",
    authorize="accounts.google.com/o/oauth2/v2/auth",
    token="oauth2.googleapis.com/token",
    userinfo="openidconnect.googleapis.com/v1/userinfo",
    offline={"access_type": "offline", "prompt": "consent"},
    first=standard(_HOUR),
    again=standard(_HOUR),
    lifetime=_HOUR,
    rotates=False,
    idle=180 * _DAY,
    revocation="oauth2.googleapis.com/revoke",
    revocation_ends="person",
)
# "The Microsoft identity platform doesn't revoke old refresh tokens when used".
_MICROSOFT: Final = Behaviour(
    source="https://learn.microsoft.com/entra/identity-platform/refresh-tokens",
    issuer="login.microsoftonline.com/tenant-1/v2.0",
    authorize="login.microsoftonline.com/tenant-1/oauth2/v2.0/authorize",
    token="login.microsoftonline.com/tenant-1/oauth2/v2.0/token",
    userinfo="graph.microsoft.com/oidc/userinfo",
    offline_scope="offline_access",
    first=standard(_HOUR),
    again=standard(_HOUR),
    lifetime=_HOUR,
    spent_lives=FOREVER,
    idle=90 * _DAY,
    refused=Answer(400, {"error": "invalid_grant", "error_codes": [700082]}),
    bad_client=Answer(401, {"error": "invalid_client", "error_codes": [7000215]}),
)
# Its ID tokens name the user's own tenant as issuer. "Claims like `sub` are interpreted within the
# context of the issuer/tenant."
_MICROSOFT_MULTITENANT: Final = replace(
    _MICROSOFT,
    source="https://learn.microsoft.com/entra/identity-platform/access-tokens",
    issuer="",
    names_issuer=lambda one: f"login.microsoftonline.com/{one.group}/v2.0",
    claims=lambda one: {"tid": one.group},
    authorize="login.microsoftonline.com/organizations/oauth2/v2.0/authorize",
    token="login.microsoftonline.com/organizations/oauth2/v2.0/token",
)
# "Okta immediately invalidates the most recently issued refresh token and all access tokens".
_OKTA_ROTATING: Final = Behaviour(
    source="https://developer.okta.com/docs/guides/refresh-tokens/main/",
    issuer="acme.okta.com/oauth2/default",
    authorize="acme.okta.com/oauth2/default/v1/authorize",
    token="acme.okta.com/oauth2/default/v1/token",
    userinfo="acme.okta.com/oauth2/default/v1/userinfo",
    offline_scope="offline_access",
    first=standard(_HOUR),
    again=standard(_HOUR),
    lifetime=_HOUR,
    spent_lives=30,
    reuse_ends_grant=True,
    idle=7 * _DAY,
    revocation="acme.okta.com/oauth2/default/v1/revoke",
)
_OKTA: Final = replace(_OKTA_ROTATING, rotates=False)
# 403 for a refresh token that is not taken; a reuse ends the family, access tokens live on.
_AUTH0_ROTATING: Final = Behaviour(
    source="https://auth0.com/docs/secure/tokens/refresh-tokens/refresh-token-rotation",
    issuer="acme.auth0.com/",
    authorize="acme.auth0.com/authorize",
    token="acme.auth0.com/oauth/token",
    userinfo="acme.auth0.com/userinfo",
    offline_scope="offline_access",
    first=standard(_DAY),
    again=standard(_DAY),
    lifetime=_DAY,
    reuse_ends_grant=True,
    idle=30 * _DAY,
    refused=Answer(403, {"error": "invalid_grant", "error_description": "Unknown or invalid"}),
    bad_client=Answer(401, {"error": "access_denied", "error_description": "Unauthorized"}),
    revocation="acme.auth0.com/oauth/revoke",
    revokes="refresh",
)
_AUTH0: Final = replace(_AUTH0_ROTATING, rotates=False)
# RefreshTokenGrantType and TokenManager: every answer brings a refresh token. With "Revoke Refresh
# Token" a stale one detaches the client session, which kills the newest too.
_KEYCLOAK_REVOKING: Final = Behaviour(
    source=(
        "https://github.com/keycloak/keycloak/blob/26.4.0/services/src/main/java/org/keycloak"
        "/protocol/oidc/TokenManager.java"
    ),
    issuer="sso.example.com/realms/acme",
    authorize="sso.example.com/realms/acme/protocol/openid-connect/auth",
    token="sso.example.com/realms/acme/protocol/openid-connect/token",
    userinfo="sso.example.com/realms/acme/protocol/openid-connect/userinfo",
    first=standard(300),
    again=standard(300),
    lifetime=300,
    reuse_ends_grant=True,
    refused=Answer(400, {"error": "invalid_grant", "error_description": "Stale token"}),
    bad_client=Answer(401, {"error": "unauthorized_client"}),
    revocation="sso.example.com/realms/acme/protocol/openid-connect/revoke",
    not_revoked=Answer(200, {"error": "invalid_token"}),
)
_KEYCLOAK: Final = replace(_KEYCLOAK_REVOKING, spent_lives=FOREVER, reuse_ends_grant=False)
# Endpoints are at another host than the issuer. Without rotation a refresh brings no refresh token.
_COGNITO: Final = Behaviour(
    source="https://docs.aws.amazon.com/cognito/latest/developerguide/revocation-endpoint.html",
    issuer="cognito-idp.eu-west-1.amazonaws.com/eu-west-1_1",
    authorize="acme.auth.eu-west-1.amazoncognito.com/oauth2/authorize",
    token="acme.auth.eu-west-1.amazoncognito.com/oauth2/token",
    userinfo="acme.auth.eu-west-1.amazoncognito.com/oauth2/userInfo",
    credentials=("basic",),
    first=standard(_HOUR),
    again=standard(_HOUR),
    lifetime=_HOUR,
    rotates=False,
    revocation="acme.auth.eu-west-1.amazoncognito.com/oauth2/revoke",
    revokes="refresh",
)
_COGNITO_ROTATING: Final = replace(
    _COGNITO,
    source=(
        "https://docs.aws.amazon.com/cognito-user-identity-pools/latest/APIReference"
        "/API_RefreshTokenRotationType.html"
    ),
    rotates=True,
)
# RFC 9700 section 4.14.2: a spent refresh token that comes back ends the grant.
_GENERIC: Final = Behaviour(
    source="https://www.rfc-editor.org/rfc/rfc9700",
    issuer="id.example.com",
    authorize="id.example.com/authorize",
    token="id.example.com/token",
    userinfo="id.example.com/userinfo",
    offline={"prompt": "consent"},
    offline_scope="offline_access",
    first=standard(_HOUR),
    again=standard(_HOUR),
    lifetime=_HOUR,
    reuse_ends_grant=True,
    revocation="id.example.com/revoke",
)

IDENTITY: Final[Mapping[str, Behaviour]] = {
    "auth0": _AUTH0,
    "auth0 with rotation": _AUTH0_ROTATING,
    "cognito": _COGNITO,
    "cognito with rotation": _COGNITO_ROTATING,
    "generic-oidc": _GENERIC,
    "google": _GOOGLE,
    "keycloak": _KEYCLOAK,
    "keycloak that revokes refresh tokens": _KEYCLOAK_REVOKING,
    "microsoft": _MICROSOFT,
    "microsoft-multitenant": _MICROSOFT_MULTITENANT,
    "okta": _OKTA,
    "okta with rotation": _OKTA_ROTATING,
}
