"""Salesforce: no lifetime in its answers, and rotation as a setting of the app."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_SCOPES: Final = {
    "api": "Read and change what you can in Salesforce",
    "refresh_token": "Keep this access while you are away",
    "offline_access": "Keep this access while you are away",
    "id": "Know which account you use",
    "full": "Do everything that you can in Salesforce",
}

SALESFORCE: Final = Provider(
    settings={
        "displayName": "Salesforce",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://login.salesforce.com/services/oauth2/authorize",
        "tokenEndpoint": "https://login.salesforce.com/services/oauth2/token",
        "revocationEndpoint": "https://login.salesforce.com/services/oauth2/revoke",
        "scopes": ["api", "refresh_token"],
        "subjectFrom": "token",
        "subjectField": "id",
    },
    refresh=Refresh(
        rotation="a setting",
        spends=True,
        access_lasts="the session time of the organisation; answers do not tell",
        repeated="400 `error=invalid_grant` where the app rotates, 200 where it does not",
        late="400 `error=invalid_grant`",
        dead_grant=("inactive_user",),
    ),
    sources=(
        Source(
            "https://help.salesforce.com/s/articleView/remoteaccess_oauth_refresh_token_flow.htm",
            _READ_ON,
        ),
        Source(
            "https://developer.salesforce.com/docs/platform/mobile-sdk/guide"
            "/oauth-revoking-tokens.html",
            _READ_ON,
        ),
    ),
    subject="`id` of the token answer, an address that names organisation and user",
    pkce="S256",
    notes=(
        "The word for a refused refresh token is known from other people's programs only.",
        "Organisations with a domain of their own have other addresses: write them over these.",
        "The API is at `instance_url` of the token answer, so write `apis` for your organisation.",
        "Answers do not say when a token ends: it is refreshed when the API refuses it and the"
        " server says so (`rejected_token`).",
    ),
)
