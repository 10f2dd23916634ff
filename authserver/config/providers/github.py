"""GitHub, whose OAuth Apps and GitHub Apps are two dialects of one server."""

from typing import Final

from authserver.config.providers.shape import READ_AND_WRITE, Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_PAGES: Final = "https://docs.github.com/en/apps"
_SCOPES: Final = {
    "repo": "Read and write your repositories, private ones included",
    "public_repo": "Read and write your public repositories",
    "read:user": "Read your profile",
    "user:email": "See your e-mail addresses",
    "read:org": "See your organisations and teams",
    "gist": "Write gists",
    "workflow": "Change workflow files in your repositories",
    "notifications": "Read your notifications",
    "project": "Read and write your projects",
}

# https://docs.github.com/rest: PyGithub and others follow the links in bodies as they stand.
_GITHUB_LINKS: Final = [
    "url", "archive_url", "assets_url", "assignees_url", "blobs_url", "branches_url",
    "collaborators_url", "comments_url", "commits_url", "compare_url", "contents_url",
    "contributors_url", "deployments_url", "events_url", "forks_url", "git_commits_url",
    "git_refs_url", "git_tags_url", "git_url", "hooks_url", "issue_comment_url", "issue_events_url",
    "issue_url", "issues_url", "jobs_url", "labels_url", "languages_url", "members_url",
    "merges_url", "milestones_url", "next", "notifications_url", "organizations_url",
    "previous_attempt_url", "public_members_url", "pull_request_url", "pulls_url",
    "received_events_url", "releases_url", "repos_url", "repositories_url", "repository_url",
    "review_comment_url", "review_comments_url", "stargazers_url", "starred_url", "statuses_url",
    "subscribers_url", "subscription_url", "subscriptions_url", "tags_url", "teams_url",
    "trees_url", "workflow_url",
]  # fmt: skip


def _of_repositories(*paths: str) -> list[str]:
    """The paths below a repository, which GitHub finds by owner and name, or by number."""
    roots = ("/repos/*/*", "/repositories/*")
    return [f"{root}/{path}" for root in roots for path in paths]


_REST: Final = {
    "name": "rest",
    "baseUrl": "https://api.github.com",
    "methods": READ_AND_WRITE,
    "pathPrefixes": [
        "/emojis", "/events", "/gists", "/gitignore", "/issues", "/licenses", "/markdown", "/meta",
        "/notifications", "/orgs", "/organizations", "/rate_limit", "/repos", "/repositories",
        "/search", "/teams", "/user", "/users", "/versions",
    ],
    "excludedPaths": [
        "/orgs/*/actions/runners", "/orgs/*/actions/secrets", "/orgs/*/codespaces",
        "/orgs/*/dependabot/secrets", "/orgs/*/hooks", "/orgs/*/migrations",
        "/orgs/*/personal-access-token-requests", "/orgs/*/personal-access-tokens",
        "/organizations/*/actions", "/user/codespaces", "/user/gpg_keys", "/user/installations",
        "/user/keys", "/user/migrations", "/user/ssh_signing_keys",
        *_of_repositories(
            # Keys, secrets, runners and tokens.
            "actions/runners", "actions/secrets", "codespaces", "dependabot/secrets",
            "environments/*/secrets", "hooks", "keys",
            # Redirects with a ticket.
            "actions/artifacts/*/zip", "actions/jobs/*/logs", "actions/runs/*/attempts/*/logs",
            "actions/runs/*/logs", "tarball", "zipball",
        ),
    ],
    "default": True,
    "credentialParameters": ["access_token", "client_id", "client_secret"],
    "linkMembers": _GITHUB_LINKS,
    # Both headers come with every answer to a token of an OAuth App.
    "missingScope": {
        "anyOf": True,
        "headers": {"accepted": "X-Accepted-OAuth-Scopes", "granted": "X-OAuth-Scopes"},
    },
}  # fmt: skip

# Errors come with status 200. Granted scopes are listed with commas.
_SETTINGS: Final = {
    "displayName": "GitHub",
    "type": "oauth2",
    "authorizationEndpoint": "https://github.com/login/oauth/authorize",
    "tokenEndpoint": "https://github.com/login/oauth/access_token",
    "userinfoEndpoint": "https://api.github.com/user",
    "subjectField": "id",
    "answeredScopeSeparator": ",",
    # It deletes the user's grant for the client, and with it all of their tokens.
    "revocationEndpoint": "https://api.github.com/applications/{clientId}/grant",
    "revocationMethod": "DELETE",
    "revocationSends": "accessToken",
    "revocationParameter": "access_token",
    # Only that deletion ends all: a refresh token that is presented twice costs itself alone.
    "repeatUncertainRefresh": True,
}
_SCOPES_PAGE: Final = Source(
    "https://docs.github.com/en/enterprise-server@3.11/apps/oauth-apps/building-oauth-apps/"
    "scopes-for-oauth-apps",
    _READ_ON,
)
_SUBJECT: Final = "`id` of `GET /user`, a number; the login may change"
_PKCE: Final = "recommended, S256 only"
_OWN_SOURCES: Final = (
    Source(f"{_PAGES}/oauth-apps/building-oauth-apps/authorizing-oauth-apps", _READ_ON),
    Source(
        f"{_PAGES}/oauth-apps/maintaining-oauth-apps/"
        "troubleshooting-oauth-app-access-token-request-errors",
        _READ_ON,
    ),
    Source(
        "https://github.blog/changelog/2025-07-14-pkce-support-for-oauth-and-github-app-"
        "authentication",
        _READ_ON,
    ),
)
_REVOKING: Final = (
    Source(
        "https://docs.rs/openapi-github/latest/openapi_github/apis/apps_api/"
        "fn.apps_slash_delete_authorization.html",
        _READ_ON,
    ),
    Source(
        "https://app.unpkg.com/@octokit/oauth-methods@5.1.4/files/dist-src/delete-authorization.js",
        _READ_ON,
    ),
)
_SOURCES: Final = (*_OWN_SOURCES, *_REVOKING)
_APP_PAGES: Final = f"{_PAGES}/creating-github-apps/authenticating-with-a-github-app"
_APP_SOURCES: Final = (
    Source(f"{_APP_PAGES}/refreshing-user-access-tokens", _READ_ON),
    Source(f"{_APP_PAGES}/generating-a-user-access-token-for-a-github-app", _READ_ON),
)
_APP_REFRESH: Final = Refresh(
    rotation="always",
    spends=True,
    access_lasts="8 hours; the one before ends at the refresh",
    refresh_lasts="6 months",
    revocation_ends_grant=True,
    repeated="200 `error=bad_refresh_token`",
    late="200 `error=bad_refresh_token`",
)
_NOTES: Final = (
    "GitHub Enterprise Server has other addresses: write them over these.",
    "A revocation names an access token that still lives, and ends what the user granted to every"
    " installation with the same client: give each one a client of its own.",
)

# A registration that expires no user tokens gives neither lifetime nor refresh token.
GITHUB_APP: Final = Provider(
    settings=_SETTINGS,
    refresh=_APP_REFRESH,
    sources=(*_APP_SOURCES, *_SOURCES),
    subject=_SUBJECT,
    pkce=_PKCE,
    apis=(_REST,),
    notes=(
        "The registration's permissions count; `scopes` have no meaning and stay empty.",
        "Without the registration's option *Expire user authorization tokens* there is no refresh.",
        "The word for a spent refresh token is known from other people's programs only.",
        *_NOTES,
    ),
)
GITHUB_OAUTH_APP: Final = Provider(
    settings={**_SETTINGS, "scopeDescriptions": _SCOPES},
    refresh=Refresh(
        rotation="no refresh tokens",
        spends=True,
        revocation_ends_grant=True,
        access_lasts="no end; a year without use",
    ),
    sources=(
        *_SOURCES,
        _SCOPES_PAGE,
        Source(
            "https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/"
            "token-expiration-and-revocation",
            _READ_ON,
        ),
    ),
    subject=_SUBJECT,
    pkce=_PKCE,
    apis=(_REST,),
    notes=(
        "A user has at most ten tokens for each scope of an OAuth App; the oldest ends.",
        *_NOTES,
    ),
)
# For configurations that do not say which of the two kinds their client is.
GITHUB: Final = Provider(
    settings={**_SETTINGS, "scopeDescriptions": _SCOPES},
    refresh=_APP_REFRESH,
    sources=(*_APP_SOURCES, *_SOURCES, _SCOPES_PAGE),
    subject=_SUBJECT,
    pkce=_PKCE,
    apis=(_REST,),
    notes=("Either kind of client: see `github-app` and `github-oauth-app`.", *_NOTES),
)
