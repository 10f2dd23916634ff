"""Google: refresh tokens that never rotate, and one revocation that ends all."""

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
    "https://www.googleapis.com/auth/calendar": "See and change your calendars",
    "https://www.googleapis.com/auth/calendar.readonly": "See your calendars",
    "https://www.googleapis.com/auth/drive": "See and change all your files in Drive",
    "https://www.googleapis.com/auth/drive.readonly": "See all your files in Drive",
    "https://www.googleapis.com/auth/drive.file": "See and change files you open with this server",
    "https://www.googleapis.com/auth/gmail.readonly": "Read your mail",
    "https://www.googleapis.com/auth/gmail.send": "Send mail in your name",
    "https://www.googleapis.com/auth/gmail.modify": "Read, send and change your mail",
}

# https://developers.google.com/workspace: `key` and `access_token` replace the header. A method
# lists scopes of which one is enough; its challenge names them.
_WORKSPACE: Final = {
    "methods": READ_AND_WRITE,
    "missingScope": {"anyOf": True},
    "credentialHeaders": ["X-Goog-Api-Key", "X-Goog-Iam-Authorization-Token"],
    "credentialParameters": ["access_token", "bearer_token", "key", "oauth_token"],
}
_DRIVE: Final = _WORKSPACE | {
    "name": "drive",
    "baseUrl": "https://www.googleapis.com",
    "pathPrefixes": ["/drive/v3", "/upload/drive/v3"],
}
_GMAIL: Final = _WORKSPACE | {
    "name": "gmail",
    "baseUrl": "https://gmail.googleapis.com",
    "pathPrefixes": ["/gmail/v1", "/upload/gmail/v1"],
    "excludedPaths": ["/gmail/v1/users/*/settings/cse"],
}
_CALENDAR: Final = _WORKSPACE | {
    "name": "calendar",
    "baseUrl": "https://www.googleapis.com",
    "pathPrefixes": ["/calendar/v3"],
}

GOOGLE: Final = Provider(
    # A refresh token comes with access_type=offline, and again only where consent is asked for.
    settings={
        "displayName": "Google",
        "scopeDescriptions": _SCOPES,
        "type": "oidc",
        "issuer": "https://accounts.google.com",
        "scopes": ["openid"],
        "authorizeParameters": {"access_type": "offline", "prompt": "consent"},
    },
    refresh=Refresh(
        rotation="never",
        spends=False,
        revocation_ends_grant=True,
        access_lasts="1 hour",
        refresh_lasts=(
            "6 months without use; 7 days for an app in testing; as long as the user chose where"
            " they permit it for a time (`refresh_token_expires_in`)"
        ),
        repeated="200: it stays valid",
        late="400 `error=invalid_grant`",
    ),
    sources=(
        Source("https://developers.google.com/identity/protocols/oauth2", _READ_ON),
        Source("https://developers.google.com/identity/protocols/oauth2/web-server", _READ_ON),
        Source("https://developers.google.com/identity/openid-connect/reference", _READ_ON),
        Source("https://github.com/google/google-api-ruby-client-samples/issues/18", _READ_ON),
    ),
    subject="`sub` of the ID token",
    apis=(_DRIVE, _GMAIL, _CALENDAR),
    notes=(
        "Whoever writes `authorizeParameters` repeats `access_type` and `prompt`.",
        "A revocation ends what the user granted to every client of the same Google project: give"
        " each installation a project of its own.",
        "A user has at most 100 refresh tokens for a client; the oldest ends silently.",
    ),
)
