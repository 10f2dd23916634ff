"""Auth0: an issuer that ends with a slash, and rotation as a setting."""

from typing import Final

from authserver.config.providers.shape import OPENID_SCOPES, Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_PAGES: Final = "https://auth0.com/docs"

AUTH0: Final = Provider(
    settings={
        "displayName": "Auth0",
        "scopeDescriptions": OPENID_SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
    },
    refresh=Refresh(
        rotation="a setting",
        spends=True,
        reuse_ends_grant=True,
        revocation_ends_grant=False,
        access_lasts="24 hours for an API of one's own, a setting",
        refresh_lasts="30 days without use, a setting",
        repeated="403 `error=invalid_grant` where the app rotates, 200 where it does not",
        late="403 `error=invalid_grant`",
    ),
    sources=(
        Source(f"{_PAGES}/secure/tokens/refresh-tokens", _READ_ON),
        Source(f"{_PAGES}/secure/tokens/refresh-tokens/refresh-token-rotation", _READ_ON),
        Source(f"{_PAGES}/secure/tokens/refresh-tokens/revoke-refresh-tokens", _READ_ON),
        Source(f"{_PAGES}/api/authentication/refresh-token/refresh-token", _READ_ON),
        Source(f"{_PAGES}/api/authentication/revoke-refresh-token/revoke-refresh-token", _READ_ON),
    ),
    subject="`sub` of the ID token",
    pkce="S256 only",
    issuer_form="https://YOUR-TENANT.auth0.com/",
    notes=(
        "Tokens for an API need `authorizeParameters.audience`.",
        "Where the app rotates with an overlap, write it as `refreshTokenReuseGrace`. After it a"
        " spent token ends every refresh token of that sign-in.",
        "An older tenant may have *Refresh Token Revocation Deletes Grant* on: then write"
        " `revocationEndsGrant: true`.",
        "A user has at most 200 refresh tokens for a client; the oldest ends.",
        "A wrong client secret is 401 `error=access_denied`, which ends no grant; so other people's"
        " programs say.",
    ),
)
