"""Any OpenID provider: what the standards say, and nothing of one product."""

from typing import Final

from authserver.config.providers.shape import OPENID_SCOPES, Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"

GENERIC_OIDC: Final = Provider(
    settings={
        "displayName": "OpenID provider",
        "scopeDescriptions": OPENID_SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
        # Core section 11: without it a provider ignores offline_access.
        "authorizeParameters": {"prompt": "consent"},
    },
    refresh=Refresh(
        rotation="a setting",
        spends=True,
        reuse_ends_grant=True,
        repeated="400 `error=invalid_grant`",
        late="400 `error=invalid_grant`",
    ),
    sources=(
        Source("https://openid.net/specs/openid-connect-core-1_0.html", _READ_ON),
        Source("https://www.rfc-editor.org/rfc/rfc7009", _READ_ON),
        Source("https://www.rfc-editor.org/rfc/rfc9700", _READ_ON),
    ),
    subject="`sub` of the ID token",
    pkce="S256 is always sent",
    issuer_form="https://YOUR-ISSUER",
    notes=(
        "Set `displayName`. What the provider does at refresh is unknown, so the careful"
        " reading counts: a refresh token is spent by its use.",
    ),
)
