"""What is known of providers' APIs, as data; spelt as in the configuration file.

Outside of every preset: GraphQL and batch endpoints, where a method and a path decide nothing,
and endpoints that mint, echo or exchange credentials or lead to a link that is one.
"""

from collections.abc import Mapping
from typing import Any, Final

_READ_AND_WRITE: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

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


_GITHUB: Final = {
    "name": "rest",
    "baseUrl": "https://api.github.com",
    "methods": _READ_AND_WRITE,
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
}  # fmt: skip

# https://developers.google.com/workspace: `key` and `access_token` replace the header.
_GOOGLE: Final = {
    "methods": _READ_AND_WRITE,
    "credentialHeaders": ["X-Goog-Api-Key", "X-Goog-Iam-Authorization-Token"],
    "credentialParameters": ["access_token", "bearer_token", "key", "oauth_token"],
}
_DRIVE: Final = _GOOGLE | {
    "name": "drive",
    "baseUrl": "https://www.googleapis.com",
    "pathPrefixes": ["/drive/v3", "/upload/drive/v3"],
}
_GMAIL: Final = _GOOGLE | {
    "name": "gmail",
    "baseUrl": "https://gmail.googleapis.com",
    "pathPrefixes": ["/gmail/v1", "/upload/gmail/v1"],
    "excludedPaths": ["/gmail/v1/users/*/settings/cse"],
}
_CALENDAR: Final = _GOOGLE | {
    "name": "calendar",
    "baseUrl": "https://www.googleapis.com",
    "pathPrefixes": ["/calendar/v3"],
}

# https://learn.microsoft.com/graph/api/overview: `$batch` stands beside these paths.
_GRAPH: Final = {
    "name": "graph",
    "baseUrl": "https://graph.microsoft.com",
    "methods": _READ_AND_WRITE,
    "pathPrefixes": [
        "/v1.0/chats", "/v1.0/drives", "/v1.0/groups", "/v1.0/me", "/v1.0/places", "/v1.0/planner",
        "/v1.0/search", "/v1.0/sites", "/v1.0/teams", "/v1.0/users",
    ],
    "excludedPaths": [
        "/**/$batch", "/**/authentication", "/**/createUploadSession", "/**/createLink",
        "/**/microsoft.graph.createUploadSession", "/**/microsoft.graph.createLink",
        "/**/content", "/**/contentStream",
    ],
    "default": True,
    "credentialParameters": ["access_token"],
    "linkMembers": ["@odata.nextLink", "@odata.deltaLink"],
}  # fmt: skip

# https://docs.slack.dev/reference/methods: each method is a path of its own.
_SLACK: Final = {
    "name": "web",
    "baseUrl": "https://slack.com/api",
    "methods": ["GET", "POST"],
    "pathPrefixes": [
        "/bookmarks.list", "/chat.delete", "/chat.getPermalink", "/chat.postMessage",
        "/chat.scheduleMessage", "/chat.update", "/conversations.history", "/conversations.info",
        "/conversations.list", "/conversations.members", "/conversations.open",
        "/conversations.replies", "/emoji.list", "/files.info", "/files.list", "/pins.list",
        "/reactions.add", "/reactions.get", "/reactions.list", "/reactions.remove",
        "/reminders.add", "/reminders.list", "/search.all", "/search.files", "/search.messages",
        "/team.info", "/usergroups.list", "/users.conversations", "/users.getPresence",
        "/users.info", "/users.list", "/users.lookupByEmail", "/users.profile.get",
    ],
    "default": True,
    "credentialParameters": ["token"],
}  # fmt: skip

# https://developer.atlassian.com/cloud: accessible-resources lists sites, and mints nothing.
_ATLASSIAN: Final = {
    "name": "cloud",
    "baseUrl": "https://api.atlassian.com",
    "methods": _READ_AND_WRITE,
    "pathPrefixes": [
        "/ex/confluence", "/ex/jira", "/me", "/oauth/token/accessible-resources",
    ],
    "excludedPaths": ["/**/graphql", "/**/webhook", "/**/attachment/content"],
    "default": True,
    "credentialParameters": ["jwt", "os_password", "os_username"],
    "linkMembers": ["nextPage", "self"],
}  # fmt: skip

# https://docs.gitlab.com/api/rest/authentication: tokens also come in these headers and
# parameters, and an administrator's call may name another user. Read on 2026-11-29.
_GITLAB: Final = {
    "name": "v4",
    "baseUrl": "https://gitlab.com/api/v4",
    "methods": _READ_AND_WRITE,
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
}  # fmt: skip

PRESET_APIS: Final[Mapping[str, tuple[Mapping[str, Any], ...]]] = {
    "github": (_GITHUB,),
    "google": (_DRIVE, _GMAIL, _CALENDAR),
    "microsoft": (_GRAPH,),
    "slack": (_SLACK,),
    "atlassian": (_ATLASSIAN,),
    "gitlab": (_GITLAB,),
}


def expanded_apis(preset: str, written: object) -> object:
    """The APIs of an upstream with its preset's filled in.

    Without `written` (None) they are the preset's. An entry that has the name of one of the
    preset's starts from it, and what the operator writes wins; a list names all there are.
    """
    known = {str(api["name"]): api for api in PRESET_APIS.get(preset, ())}
    if written is None:
        return [dict(api) for api in known.values()]
    if not isinstance(written, list):
        return written
    return [
        {**known.get(str(api.get("name")), {}), **api} if isinstance(api, dict) else api
        for api in written
    ]
