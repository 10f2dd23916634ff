"""Slack: user tokens inside the answer, with token rotation or without."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_SCOPES: Final = {
    "channels:read": "See the public channels of your workspace",
    "channels:history": "Read messages in public channels",
    "groups:history": "Read messages in your private channels",
    "im:history": "Read your direct messages",
    "chat:write": "Post messages in your name",
    "users:read": "See the people in your workspace",
    "search:read": "Search what you can see in your workspace",
    "files:read": "See files shared with you",
}

# https://docs.slack.dev/reference/methods: each method is a path of its own.
_WEB: Final = {
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
    "missingScope": {
        "anyOf": True,
        "members": {"status": 200, "error": "error", "value": "missing_scope", "scopes": "needed"},
    },
}  # fmt: skip

SLACK: Final = Provider(
    # User tokens are in `authed_user`, users are known within their team only.
    settings={
        "displayName": "Slack",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://slack.com/oauth/v2/authorize",
        "tokenEndpoint": "https://slack.com/api/oauth.v2.access",
        # It names the user too, but not as the token answer does: it tells whether a token lives.
        "userinfoEndpoint": "https://slack.com/api/auth.test",
        "revocationEndpoint": "https://slack.com/api/auth.revoke",
        # With rotation each token lives on when the other is revoked.
        "revocationSends": "both",
        "scopeParameter": "user_scope",
        "scopeSeparator": ",",
        "answeredScopeSeparator": ",",
        "tokenPath": "authed_user",
        "tokenTypes": ["bearer", "user"],
        "subjectFrom": "token",
        "subjectField": ["team.id", "authed_user.id"],
    },
    refresh=Refresh(
        rotation="a setting",
        spends=True,
        access_lasts="12 hours with rotation, else no end",
        refresh_lasts="until it is used, and a short grace",
        repeated="200 `ok=false`, `error=invalid_refresh_token` after a short grace",
        dead_grant=("token_expired", "account_inactive", "invalid_auth"),
    ),
    sources=(
        Source("https://docs.slack.dev/authentication/using-token-rotation", _READ_ON),
        Source("https://docs.slack.dev/authentication/installing-with-oauth", _READ_ON),
        Source("https://docs.slack.dev/reference/methods/oauth.v2.access", _READ_ON),
        Source("https://docs.slack.dev/reference/methods/auth.revoke", _READ_ON),
        Source("https://github.com/slackhq/slack-api-docs/issues/47", _READ_ON),
    ),
    subject="`team.id` and `authed_user.id` of the first token answer",
    apis=(_WEB,),
    notes=(
        "The word for a spent refresh token is known from other people's programs only.",
        "Errors come with status 200 and `ok: false`.",
        "Rotation is turned on in the app's settings and cannot be turned off again.",
        "Of one authorization two access tokens live at most: a third refresh within 12 hours ends"
        " the oldest.",
        "With rotation a revocation ends the one token that it names, so both are revoked; without,"
        " it ends the authorization.",
        "That a Web API answer names the missing scope in `needed` is said in Slack's own issue"
        " tracker; whether one of several would do is not said.",
    ),
)
