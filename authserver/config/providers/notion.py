"""Notion: token requests in JSON, and a user who is named in their answer."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_PAGES: Final = "https://developers.notion.com"
# The newest version that the pages name; token requests need the header as API calls do.
_VERSION: Final = "2026-03-11"

_REST: Final = {
    "name": "rest",
    "baseUrl": "https://api.notion.com",
    "methods": ["GET", "HEAD", "POST", "PATCH", "DELETE"],
    "pathPrefixes": [
        "/v1/blocks", "/v1/comments", "/v1/data_sources", "/v1/databases", "/v1/pages",
        "/v1/search", "/v1/users",
    ],
    "default": True,
}  # fmt: skip

NOTION: Final = Provider(
    settings={
        "displayName": "Notion",
        "type": "oauth2",
        "authorizationEndpoint": "https://api.notion.com/v1/oauth/authorize",
        "tokenEndpoint": "https://api.notion.com/v1/oauth/token",
        "revocationEndpoint": "https://api.notion.com/v1/oauth/revoke",
        "authorizeParameters": {"owner": "user"},
        "clientAuthentication": "basic",
        "requestFormat": "json",
        "requestHeaders": {"Notion-Version": _VERSION},
        "userinfoEndpoint": "https://api.notion.com/v1/users/me",
        "subjectFrom": "token",
        "subjectField": ["workspace_id", "owner.user.id"],
    },
    refresh=Refresh(
        rotation="always",
        spends=True,
        repeated="400 `code=invalid_grant`",
        late="400 `code=invalid_grant`",
        dead_grant=("code=invalid_grant",),
    ),
    sources=(
        Source(f"{_PAGES}/guides/get-started/authorization", _READ_ON),
        Source(f"{_PAGES}/reference/create-a-token", _READ_ON),
        Source(f"{_PAGES}/reference/refresh-a-token", _READ_ON),
        Source(f"{_PAGES}/reference/revoke-token", _READ_ON),
        Source(f"{_PAGES}/reference/status-codes", _READ_ON),
    ),
    subject="`workspace_id` and `owner.user.id` of the token answer",
    apis=(_REST,),
    api_headers=("Notion-Version",),
    notes=(
        "There are no scopes: the connection's capabilities and the pages that the user picks"
        " count.",
        "Answers name no lifetime; `refresh_token` may be null, and then there is no refresh.",
        "Errors carry their word in `code`, where others have `error`.",
    ),
)
