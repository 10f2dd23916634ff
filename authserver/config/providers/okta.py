"""Okta: rotation is a setting of the app."""

from typing import Final

from authserver.config.providers.shape import OPENID_SCOPES, Provider, Refresh, Source

OKTA: Final = Provider(
    settings={
        "displayName": "Okta",
        "scopeDescriptions": OPENID_SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
    },
    refresh=Refresh(
        rotation="a setting",
        spends=True,
        reuse_ends_grant=True,
        access_lasts="1 hour, a setting",
        refresh_lasts="no end, but 7 days without use; a setting",
        repeated="400 `error=invalid_grant` where the app rotates, 200 where it does not",
        late="400 `error=invalid_grant`",
    ),
    sources=(
        Source("https://developer.okta.com/docs/guides/refresh-tokens/main/", "2026-11-29"),
        Source("https://developer.okta.com/docs/reference/api/oidc/", "2026-11-29"),
    ),
    subject="`sub` of the ID token",
    pkce="supported",
    issuer_form="https://YOUR-DOMAIN.okta.com/oauth2/default",
    notes=(
        "Web apps keep one refresh token by default. Where the app rotates, Okta takes a spent one"
        " for 0 to 60 seconds (30 by default): write it as `refreshTokenReuseGrace`.",
        "A spent token that comes later ends the newest refresh token and all access tokens.",
    ),
)
