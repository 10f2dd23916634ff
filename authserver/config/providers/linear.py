"""Linear: no identity outside GraphQL, so it is only ever a linked upstream."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_SCOPES: Final = {
    "read": "Read what you can see in Linear",
    "write": "Change what you can change in Linear",
    "issues:create": "Create issues in your name",
    "comments:create": "Write comments in your name",
    "timeSchedule:write": "Create and change time schedules",
}

LINEAR: Final = Provider(
    settings={
        "displayName": "Linear",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://linear.app/oauth/authorize",
        "tokenEndpoint": "https://api.linear.app/oauth/token",
        "revocationEndpoint": "https://api.linear.app/oauth/revoke",
        "revocationParameter": "refresh_token",
        "scopes": ["read"],
        "scopeSeparator": ",",
    },
    refresh=Refresh(
        rotation="always",
        spends=True,
        access_lasts="24 hours",
    ),
    sources=(Source("https://linear.app/developers/oauth-2-0-authentication", "2026-11-29"),),
    subject="none outside GraphQL: put it behind an upstream that names the user",
    pkce="S256 or plain",
    api_base_urls=("https://api.linear.app/graphql",),
    notes=("Its API is GraphQL only, where Attach could not tell reading from writing.",),
)
