"""Keycloak: a new refresh token each time, and reuse counted in uses, not in seconds."""

from typing import Final

from authserver.config.providers.shape import OPENID_SCOPES, Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_CODE: Final = "https://github.com/keycloak/keycloak/blob/26.4.0/services/src/main/java/org/keycloak/protocol/oidc"

KEYCLOAK: Final = Provider(
    settings={
        "displayName": "Keycloak",
        "scopeDescriptions": OPENID_SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
    },
    refresh=Refresh(
        rotation="always",
        spends=True,
        reuse_ends_grant=True,
        revocation_ends_grant=False,
        access_lasts="a setting of the realm",
        refresh_lasts="settings of the realm; a use begins the idle time anew",
        repeated="400 `error=invalid_grant` where the realm revokes refresh tokens, else 200",
        late="400 `error=invalid_grant`",
    ),
    sources=(
        Source(f"{_CODE}/TokenManager.java", _READ_ON),
        Source(f"{_CODE}/endpoints/TokenRevocationEndpoint.java", _READ_ON),
        Source(
            "https://github.com/keycloak/keycloak/blob/main/docs/documentation/server_admin/topics"
            "/sessions/timeouts.adoc",
            _READ_ON,
        ),
    ),
    subject="`sub` of the ID token",
    pkce="supported; the client's registration may require it",
    issuer_form="https://YOUR-HOST/realms/YOUR-REALM",
    notes=(
        "With *Revoke Refresh Token* on, a spent token that comes back ends this client's session:"
        " the newest refresh token is dead too.",
        "A revoked refresh token ends this client's part of the user's session.",
        "A wrong client secret is 401 `error=unauthorized_client`.",
        "Without `offline_access` the refresh token ends with the user's session at Keycloak.",
    ),
)
