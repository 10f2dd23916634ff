"""What is known of real providers, as data: an upstream with `preset: NAME` starts from here.

Members are spelt as in the configuration file, and what the operator writes wins. A preset
without `issuer` needs the operator's own (Okta, Auth0: the domain; Microsoft: the tenant).
"""

from collections.abc import Mapping
from typing import Any, Final

from authserver.config.preset_apis import expanded_apis

# OpenID Connect Core section 5.4 and 11, in the words of our consent page.
OPENID_SCOPES: Final[Mapping[str, str]] = {
    "openid": "Know which account you use",
    "profile": "See your name and profile",
    "email": "See your e-mail address",
    "offline_access": "Keep this access while you are away",
}
_GITHUB_SCOPES: Final = {
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
_GOOGLE_SCOPES: Final = {
    **OPENID_SCOPES,
    "https://www.googleapis.com/auth/calendar": "See and change your calendars",
    "https://www.googleapis.com/auth/calendar.readonly": "See your calendars",
    "https://www.googleapis.com/auth/drive": "See and change all your files in Drive",
    "https://www.googleapis.com/auth/drive.readonly": "See all your files in Drive",
    "https://www.googleapis.com/auth/drive.file": "See and change files you open with this server",
    "https://www.googleapis.com/auth/gmail.readonly": "Read your mail",
    "https://www.googleapis.com/auth/gmail.send": "Send mail in your name",
    "https://www.googleapis.com/auth/gmail.modify": "Read, send and change your mail",
}
_MICROSOFT_SCOPES: Final = {
    **OPENID_SCOPES,
    "User.Read": "Read your profile",
    "Mail.Read": "Read your mail",
    "Mail.Send": "Send mail in your name",
    "Calendars.Read": "See your calendars",
    "Calendars.ReadWrite": "See and change your calendars",
    "Files.Read": "See your files",
    "Files.ReadWrite": "See and change your files",
    "Chat.Read": "Read your chats",
}
_SLACK_SCOPES: Final = {
    "channels:read": "See the public channels of your workspace",
    "channels:history": "Read messages in public channels",
    "groups:history": "Read messages in your private channels",
    "im:history": "Read your direct messages",
    "chat:write": "Post messages in your name",
    "users:read": "See the people in your workspace",
    "search:read": "Search what you can see in your workspace",
    "files:read": "See files shared with you",
}
_ATLASSIAN_SCOPES: Final = {
    "offline_access": "Keep this access while you are away",
    "read:me": "Read your profile",
    "read:jira-work": "Read your Jira projects and issues",
    "write:jira-work": "Create and change Jira issues in your name",
    "read:confluence-content.all": "Read Confluence pages that you can see",
}
_GITLAB_SCOPES: Final = {
    **OPENID_SCOPES,
    "api": "Read and change everything that you can at GitLab",
    "read_api": "Read everything that you can at GitLab",
    "read_user": "Read your profile",
    "read_repository": "Read the repositories that you can",
    "write_repository": "Read and write the repositories that you can",
}
_LINEAR_SCOPES: Final = {
    "read": "Read what you can see in Linear",
    "write": "Change what you can change in Linear",
    "issues:create": "Create issues in your name",
    "comments:create": "Write comments in your name",
}

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # https://docs.github.com/apps/oauth-apps and /apps/creating-github-apps: answers 200 to
    # errors, lists granted scopes with commas, gives expiry and refresh tokens to GitHub Apps.
    "github": {
        "displayName": "GitHub",
        "scopeDescriptions": _GITHUB_SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://github.com/login/oauth/authorize",
        "tokenEndpoint": "https://github.com/login/oauth/access_token",
        "userinfoEndpoint": "https://api.github.com/user",
        "subjectField": "id",
        "answeredScopeSeparator": ",",
    },
    # https://developers.google.com/identity/protocols/oauth2/web-server: a refresh token comes
    # with access_type=offline, and again only where consent is asked for; it never rotates. One
    # revocation ends all that the user granted to the client.
    "google": {
        "displayName": "Google",
        "scopeDescriptions": _GOOGLE_SCOPES,
        "type": "oidc",
        "issuer": "https://accounts.google.com",
        "scopes": ["openid"],
        "authorizeParameters": {"access_type": "offline", "prompt": "consent"},
        "rotatesRefreshTokens": False,
        "revocationEndsGrant": True,
    },
    # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow: a new refresh
    # token does not revoke the old one; the issuer is https://login.microsoftonline.com/TENANT/v2.0.
    "microsoft": {
        "displayName": "Microsoft",
        "scopeDescriptions": _MICROSOFT_SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
        "clientAuthentication": "body",
        "rotatesRefreshTokens": False,
    },
    # https://docs.slack.dev/authentication/installing-with-oauth: user tokens stand in
    # `authed_user`, users are known within their team only, errors come with status 200.
    "slack": {
        "displayName": "Slack",
        "scopeDescriptions": _SLACK_SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://slack.com/oauth/v2/authorize",
        "tokenEndpoint": "https://slack.com/api/oauth.v2.access",
        "scopeParameter": "user_scope",
        "scopeSeparator": ",",
        "answeredScopeSeparator": ",",
        "tokenPath": "authed_user",
        "tokenTypes": ["bearer", "user"],
        "subjectFrom": "token",
        "subjectField": ["team.id", "authed_user.id"],
        "deadGrantErrors": ["token_expired", "account_inactive", "invalid_auth"],
    },
    # https://developer.okta.com/docs/guides/refresh-tokens: rotation is a setting of the app.
    "okta": {
        "displayName": "Okta",
        "scopeDescriptions": OPENID_SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
    },
    # https://auth0.com/docs/secure/tokens/refresh-tokens: the issuer ends with a slash; an API's
    # tokens need authorizeParameters.audience.
    "auth0": {
        "displayName": "Auth0",
        "scopeDescriptions": OPENID_SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
    },
    # https://developer.atlassian.com/cloud/oauth/getting-started: always rotates, and takes a
    # spent refresh token again for ten minutes. A dead one was once called unauthorized_client.
    "atlassian": {
        "displayName": "Atlassian",
        "scopeDescriptions": _ATLASSIAN_SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://auth.atlassian.com/authorize",
        "tokenEndpoint": "https://auth.atlassian.com/oauth/token",
        "userinfoEndpoint": "https://api.atlassian.com/me",
        "subjectField": "account_id",
        "scopes": ["offline_access", "read:me"],
        "authorizeParameters": {"audience": "api.atlassian.com", "prompt": "consent"},
        "refreshTokenReuseGrace": "10m",
        "deadGrantErrors": ["unauthorized_client"],
    },
    # https://docs.gitlab.com/integration/openid_connect_provider and /api/oauth2, read on
    # 2026-11-29: `sub` is the user's id; access tokens last two hours; a refresh ends the access
    # token and the refresh token before it. An instance of one's own has another issuer.
    "gitlab": {
        "displayName": "GitLab",
        "scopeDescriptions": _GITLAB_SCOPES,
        "type": "oidc",
        "issuer": "https://gitlab.com",
        "scopes": ["openid"],
    },
    # https://linear.app/developers/oauth-2-0-authentication, read on 2026-11-29: scopes are
    # separated by commas; refresh tokens rotate. Who the user is, only GraphQL tells: so this
    # upstream names nobody, stands behind another one, and has no API for Attach.
    "linear": {
        "displayName": "Linear",
        "scopeDescriptions": _LINEAR_SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://linear.app/oauth/authorize",
        "tokenEndpoint": "https://api.linear.app/oauth/token",
        "revocationEndpoint": "https://api.linear.app/oauth/revoke",
        "scopes": ["read"],
        "scopeSeparator": ",",
    },
    # Nothing is known: `type` and everything else is the operator's.
    "generic": {},
}


def expanded(upstream: Mapping[str, Any]) -> dict[str, Any]:
    """An upstream of the configuration file with its preset filled in.

    The operator's `deadGrantErrors` come beside those of the preset. The operator's words for a
    scope win over the preset's, scope by scope. Their APIs start from the preset's, name by name.
    """
    preset = upstream.get("preset")
    known = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    merged = {**known, **upstream}
    errors = merged.get("deadGrantErrors")
    if isinstance(errors, list):
        merged["deadGrantErrors"] = [*known.get("deadGrantErrors", []), *errors]
    if isinstance(preset, str):
        merged["apis"] = expanded_apis(preset, upstream.get("apis"))
    words = merged.get("scopeDescriptions", {})
    if isinstance(words, Mapping):
        base = OPENID_SCOPES if merged.get("type") == "oidc" else {}
        merged["scopeDescriptions"] = {**base, **known.get("scopeDescriptions", {}), **words}
    return merged
