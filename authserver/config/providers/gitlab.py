"""GitLab: OpenID Connect, and a refresh that ends the access token before it."""

from typing import Final

from authserver.config.providers.shape import (
    OPENID_SCOPES,
    READ_AND_WRITE,
    Provider,
    Refresh,
    Source,
)

_READ_ON: Final = "2026-11-29"
_SCOPES: Final = {
    **OPENID_SCOPES,
    "api": "Read and change everything that you can at GitLab",
    "read_api": "Read everything that you can at GitLab",
    "read_user": "Read your profile",
    "read_repository": "Read the repositories that you can",
    "write_repository": "Read and write the repositories that you can",
}

# https://docs.gitlab.com/api/rest/authentication: tokens also come in these headers and
# parameters, and an administrator's call may name another user. Read on 2026-11-29.
_V4: Final = {
    "name": "v4",
    "baseUrl": "https://gitlab.com/api/v4",
    "methods": READ_AND_WRITE,
    "pathPrefixes": [
        "/events", "/groups", "/issues", "/merge_requests", "/namespaces", "/projects", "/search",
        "/snippets", "/todos", "/user", "/users", "/version",
    ],
    "excludedPaths": [
        "/user/gpg_keys", "/user/keys", "/user/personal_access_tokens", "/user/runners",
        "/users/*/gpg_keys", "/users/*/impersonation_tokens", "/users/*/keys",
        "/users/*/personal_access_tokens",
        *(
            f"/{owner}/*/{path}"
            for owner in ("groups", "projects")
            for path in ("access_tokens", "deploy_tokens", "hooks", "runners", "variables")
        ),
        "/projects/*/deploy_keys", "/projects/*/pipeline_schedules", "/projects/*/remote_mirrors",
        "/projects/*/secure_files", "/projects/*/triggers", "/projects/*/trigger",
    ],
    "default": True,
    "credentialHeaders": ["Deploy-Token", "Job-Token", "Private-Token", "Sudo"],
    "credentialParameters": ["access_token", "job_token", "private_token", "sudo"],
    # It sends no challenge. Every scope that it names would be enough.
    "missingScope": {
        "anyOf": True,
        "members": {
            "status": 403, "error": "error", "value": "insufficient_scope", "scopes": "scope",
        },
    },
}  # fmt: skip

GITLAB: Final = Provider(
    settings={
        "displayName": "GitLab",
        "scopeDescriptions": _SCOPES,
        "type": "oidc",
        "issuer": "https://gitlab.com",
        "scopes": ["openid"],
    },
    refresh=Refresh(
        rotation="always",
        spends=True,
        access_lasts="2 hours; the one before ends at the refresh",
        refresh_lasts="",
        repeated="400 `error=invalid_grant`",
        late="400 `error=invalid_grant`",
    ),
    sources=(
        Source("https://docs.gitlab.com/api/oauth2/", _READ_ON),
        Source("https://docs.gitlab.com/integration/openid_connect_provider/", _READ_ON),
        Source("https://github.com/gitlabhq/gitlabhq/blob/master/lib/api/api_guard.rb", _READ_ON),
    ),
    subject="`sub` of the ID token: the user's id",
    pkce="supported",
    apis=(_V4,),
    notes=("An instance of one's own has another issuer; write `apis` for it too.",),
)
