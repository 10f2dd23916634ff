"""Figma: refresh tokens go to an endpoint of their own and never rotate."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_SCOPES: Final = {
    "current_user:read": "See your name, e-mail address and picture",
    "file_content:read": "Read the files that you can",
    "file_metadata:read": "See names and dates of files",
    "file_comments:read": "Read comments in files",
    "file_comments:write": "Write and delete comments in your name",
    "file_dev_resources:read": "See links between files and code",
    "file_dev_resources:write": "Change links between files and code",
    "file_versions:read": "See the versions of files",
    "library_content:read": "See published components and styles of files",
    "projects:read": "See your projects and their files",
}

FIGMA: Final = Provider(
    settings={
        "displayName": "Figma",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://www.figma.com/oauth",
        "tokenEndpoint": "https://api.figma.com/v1/oauth/token",
        "refreshEndpoint": "https://api.figma.com/v1/oauth/refresh",
        "userinfoEndpoint": "https://api.figma.com/v1/me",
        "subjectField": "id",
        "clientAuthentication": "basic",
        "scopes": ["current_user:read"],
    },
    refresh=Refresh(rotation="never", spends=False, access_lasts="90 days"),
    sources=(
        Source(
            "https://github.com/figma/rest-api-spec/blob/main/openapi/openapi.yaml", "2026-11-29"
        ),
    ),
    subject="`id` of `GET /v1/me`, which needs the scope `current_user:read`",
    api_base_urls=("https://api.figma.com",),
    notes=(
        "That the refresh token stays the same, and the lifetime, are known from other people's"
        " programs only.",
        "No word for an ended grant is known: several refusals over minutes count as one.",
    ),
)
