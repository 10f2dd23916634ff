"""Atlassian Cloud: tokens that always rotate, with ten minutes of grace."""

from typing import Final

from authserver.config.providers.shape import READ_AND_WRITE, Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_SCOPES: Final = {
    "offline_access": "Keep this access while you are away",
    "read:me": "Read your profile",
    "read:jira-work": "Read your Jira projects and issues",
    "write:jira-work": "Create and change Jira issues in your name",
    "read:confluence-content.all": "Read Confluence pages that you can see",
}

# https://developer.atlassian.com/cloud: accessible-resources lists sites, and mints nothing.
_CLOUD: Final = {
    "name": "cloud",
    "baseUrl": "https://api.atlassian.com",
    "methods": READ_AND_WRITE,
    "pathPrefixes": [
        "/ex/confluence", "/ex/jira", "/me", "/oauth/token/accessible-resources",
    ],
    "excludedPaths": ["/**/graphql", "/**/webhook", "/**/attachment/content"],
    "default": True,
    "credentialParameters": ["jwt", "os_password", "os_username"],
    "linkMembers": ["nextPage", "self"],
}  # fmt: skip

ATLASSIAN: Final = Provider(
    settings={
        "displayName": "Atlassian",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://auth.atlassian.com/authorize",
        "tokenEndpoint": "https://auth.atlassian.com/oauth/token",
        "userinfoEndpoint": "https://api.atlassian.com/me",
        "subjectField": "account_id",
        "scopes": ["offline_access", "read:me"],
        "authorizeParameters": {"audience": "api.atlassian.com", "prompt": "consent"},
    },
    refresh=Refresh(
        rotation="always",
        spends=True,
        reuse_grace="10m",
        reuse_ends_grant=True,
        access_lasts="1 hour; the one before ends 10 minutes after the refresh",
        refresh_lasts="90 days without use",
        repeated="200 within 10 minutes, then 403 `error=invalid_grant`",
        late="403 `error=invalid_grant`",
        dead_grant=("unauthorized_client",),
    ),
    sources=(
        Source(
            "https://developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens", _READ_ON
        ),
        Source("https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps", _READ_ON),
        Source(
            "https://community.developer.atlassian.com/t/the-old-access-token-will-be-revoked-"
            "during-the-refresh-token-exchange/83103",
            _READ_ON,
        ),
    ),
    subject="`account_id` of `GET /me`, which needs the scope `read:me`",
    apis=(_CLOUD,),
    notes=(
        "A dead refresh token was once called `unauthorized_client`.",
        "The status 403, and 401 `error=access_denied` for a wrong client secret, are known from"
        " other people's programs only.",
    ),
)
