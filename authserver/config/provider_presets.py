"""What is known of real providers, as data: an upstream with `preset: NAME` starts from here.

Members are spelt as in the configuration file, and what the operator writes wins. A preset
without `issuer` needs the operator's own (Okta, Auth0: the domain; Microsoft: the tenant).
"""

from collections.abc import Mapping
from typing import Any, Final

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # https://docs.github.com/apps/oauth-apps and /apps/creating-github-apps: answers 200 to
    # errors, lists granted scopes with commas, gives expiry and refresh tokens to GitHub Apps.
    "github": {
        "type": "oauth2",
        "authorizationEndpoint": "https://github.com/login/oauth/authorize",
        "tokenEndpoint": "https://github.com/login/oauth/access_token",
        "userinfoEndpoint": "https://api.github.com/user",
        "subjectField": "id",
        "answeredScopeSeparator": ",",
    },
    # https://developers.google.com/identity/protocols/oauth2/web-server: a refresh token comes
    # with access_type=offline, and again only where consent is asked for; it never rotates.
    "google": {
        "type": "oidc",
        "issuer": "https://accounts.google.com",
        "scopes": ["openid"],
        "authorizeParameters": {"access_type": "offline", "prompt": "consent"},
        "rotatesRefreshTokens": False,
    },
    # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow: a new refresh
    # token does not revoke the old one; the issuer is https://login.microsoftonline.com/TENANT/v2.0.
    "microsoft": {
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
        "clientAuthentication": "body",
        "rotatesRefreshTokens": False,
    },
    # https://docs.slack.dev/authentication/installing-with-oauth: user tokens stand in
    # `authed_user`, users are known within their team only, errors come with status 200.
    "slack": {
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
    },
    # https://developer.okta.com/docs/guides/refresh-tokens: rotation is a setting of the app.
    "okta": {"type": "oidc", "scopes": ["openid", "offline_access"]},
    # https://auth0.com/docs/secure/tokens/refresh-tokens: the issuer ends with a slash; an API's
    # tokens need authorizeParameters.audience.
    "auth0": {"type": "oidc", "scopes": ["openid", "offline_access"]},
    # https://developer.atlassian.com/cloud/oauth/getting-started: always rotates, and takes a
    # spent refresh token again for ten minutes.
    "atlassian": {
        "type": "oauth2",
        "authorizationEndpoint": "https://auth.atlassian.com/authorize",
        "tokenEndpoint": "https://auth.atlassian.com/oauth/token",
        "userinfoEndpoint": "https://api.atlassian.com/me",
        "subjectField": "account_id",
        "scopes": ["offline_access", "read:me"],
        "authorizeParameters": {"audience": "api.atlassian.com", "prompt": "consent"},
        "refreshTokenReuseGrace": "10m",
    },
    # Nothing is known: `type` and everything else is the operator's.
    "generic": {},
}


def expanded(upstream: Mapping[str, Any]) -> dict[str, Any]:
    """An upstream of the configuration file with its preset filled in."""
    preset = upstream.get("preset")
    known = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    return {**known, **upstream}
