"""Zoom: refresh tokens that always rotate, and one sign-in that ends the one before."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_SCOPES: Final = {
    "user:read:user": "See your account",
    "meeting:read:meeting": "See a meeting of yours",
    "meeting:read:list_meetings": "See the list of your meetings",
    "meeting:write:meeting": "Create meetings in your name",
    "cloud_recording:read:list_user_recordings": "See your recordings",
}

ZOOM: Final = Provider(
    settings={
        "displayName": "Zoom",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://zoom.us/oauth/authorize",
        "tokenEndpoint": "https://zoom.us/oauth/token",
        "revocationEndpoint": "https://zoom.us/oauth/revoke",
        "revocationSends": "accessToken",
        "userinfoEndpoint": "https://api.zoom.us/v2/users/me",
        "subjectField": "id",
        "clientAuthentication": "basic",
    },
    refresh=Refresh(
        rotation="always",
        spends=True,
        revocation_ends_grant=True,
        access_lasts="1 hour",
        repeated="400 `error=invalid_grant`",
        late="400 `error=invalid_grant`",
    ),
    sources=(
        Source("https://developers.zoom.us/blog/public-pkce", _READ_ON),
        Source("https://developers.zoom.us/docs/rooms/oauth/", _READ_ON),
        Source(
            "https://github.com/anthropics/knowledge-work-plugins/tree/main/partner-built"
            "/zoom-plugin/skills/oauth",
            _READ_ON,
        ),
    ),
    subject="`id` of `GET /v2/users/me`",
    pkce="S256 or plain",
    api_base_urls=("https://api.zoom.us/v2",),
    notes=(
        "The word for a refused refresh token is known from other people's programs only.",
        "The app's registration names the scopes; asked for none, Zoom grants those.",
        "A new sign-in ends all tokens that the user gave our client before. Two servers that"
        " connect the same user need two clients.",
    ),
)
