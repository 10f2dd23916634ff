"""Dropbox: an offline token for those who ask, and a revocation by the access token itself."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_SCOPES: Final = {
    "account_info.read": "See your account",
    "files.metadata.read": "See names and dates of your files",
    "files.metadata.write": "Change names and places of your files",
    "files.content.read": "Read your files",
    "files.content.write": "Change your files",
    "sharing.read": "See what you share and with whom",
    "sharing.write": "Change what you share and with whom",
    "file_requests.read": "See your file requests",
    "file_requests.write": "Change your file requests",
    "contacts.write": "Change your contacts",
}

DROPBOX: Final = Provider(
    # A refresh token comes with token_access_type=offline only.
    settings={
        "displayName": "Dropbox",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://www.dropbox.com/oauth2/authorize",
        "tokenEndpoint": "https://api.dropboxapi.com/oauth2/token",
        "revocationEndpoint": "https://api.dropboxapi.com/2/auth/token/revoke",
        "revocationSends": "bearer",
        "subjectFrom": "token",
        "subjectField": "account_id",
        "authorizeParameters": {"token_access_type": "offline"},
    },
    refresh=Refresh(
        rotation="never",
        spends=False,
        access_lasts="4 hours",
        late="400 `error=invalid_grant`",
    ),
    sources=(
        Source("https://dropbox.tech/developers/using-oauth-2-0-with-offline-access", _READ_ON),
        Source(
            "https://github.com/dropbox/dropbox-sdk-python/blob/main/dropbox/oauth.py", _READ_ON
        ),
        Source("https://github.com/dropbox/dropbox-api-spec/blob/main/auth.stone", _READ_ON),
    ),
    subject="`account_id` of the token answer",
    pkce="S256",
    api_base_urls=("https://api.dropboxapi.com/2", "https://content.dropboxapi.com/2"),
    notes=(
        "The lifetime of an access token is known from other people's programs only.",
        "Whoever writes `authorizeParameters` repeats `token_access_type`.",
        "A revocation takes the access token; refresh token and its other access tokens end too.",
    ),
)
