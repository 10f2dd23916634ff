"""Asana: a refresh token that never rotates, and a user who is named in the token answer."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
# Without a scope Asana grants `default`, which is everything.
_SCOPES: Final = {
    "default": "Read and change everything that you can in Asana",
    "openid": "Know which account you use",
    "email": "See your e-mail address",
    "profile": "See your name and photo",
    "tasks:read": "See your tasks",
    "tasks:write": "Create and change tasks in your name",
    "tasks:delete": "Delete tasks",
    "projects:read": "See your projects",
    "projects:write": "Create and change projects in your name",
    "stories:read": "Read comments",
    "stories:write": "Write comments in your name",
    "users:read": "See the people in your workspaces",
    "workspaces:read": "See your workspaces",
}

ASANA: Final = Provider(
    settings={
        "displayName": "Asana",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://app.asana.com/-/oauth_authorize",
        "tokenEndpoint": "https://app.asana.com/-/oauth_token",
        "revocationEndpoint": "https://app.asana.com/-/oauth_revoke",
        "subjectFrom": "token",
        "subjectField": "data.id",
    },
    refresh=Refresh(
        rotation="never",
        spends=False,
        access_lasts="1 hour",
        refresh_lasts="as long as the user permits the app",
    ),
    sources=(
        Source("https://developers.asana.com/docs/oauth", _READ_ON),
        Source("https://github.com/Asana/openapi/blob/master/defs/asana_oas.yaml", _READ_ON),
    ),
    subject="`data.id` of the token answer",
    pkce="S256",
    api_base_urls=("https://app.asana.com/api/1.0",),
    notes=(
        "Write `scopes`: without one Asana grants `default`, which is everything.",
        "Only a refresh token can be revoked; its access tokens end with it.",
    ),
)
