"""Auth0: an issuer that ends with a slash, and rotation as a setting."""

from typing import Final

from authserver.config.providers.shape import OPENID_SCOPES, Provider, Refresh, Source

AUTH0: Final = Provider(
    settings={
        "displayName": "Auth0",
        "scopeDescriptions": OPENID_SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
    },
    refresh=Refresh(rotation="a setting", spends=True),
    sources=(Source("https://auth0.com/docs/secure/tokens/refresh-tokens", "2026-11-29"),),
    subject="`sub` of the ID token",
    issuer_form="https://YOUR-TENANT.auth0.com/",
    notes=("Tokens for an API need `authorizeParameters.audience`.",),
)
