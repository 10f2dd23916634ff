"""Microsoft Entra ID, for one tenant and for several."""

from typing import Final

from authserver.config.providers.shape import (
    OPENID_SCOPES,
    READ_AND_WRITE,
    Provider,
    Refresh,
    Source,
)

_READ_ON: Final = "2026-11-29"
_PAGES: Final = "https://learn.microsoft.com/entra/identity-platform"
_SCOPES: Final = {
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

# https://learn.microsoft.com/graph/api/overview: `$batch` stands beside these paths.
_GRAPH: Final = {
    "name": "graph",
    "baseUrl": "https://graph.microsoft.com",
    "methods": READ_AND_WRITE,
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

# A new refresh token comes each time, and does not revoke the one before.
_REFRESH: Final = Refresh(
    rotation="always",
    spends=False,
    reuse_ends_grant=False,
    access_lasts="60 to 90 minutes, by chance",
    refresh_lasts="90 days",
    repeated="200: it stays valid",
    late="400 `error=invalid_grant`, with more in `error_codes`",
)
_SOURCES: Final = (
    Source(f"{_PAGES}/refresh-tokens", _READ_ON),
    Source(f"{_PAGES}/v2-oauth2-auth-code-flow", _READ_ON),
    Source(f"{_PAGES}/access-tokens", _READ_ON),
)
_PKCE: Final = "recommended for every kind of client"
_NOTES: Final = ("There is no revocation endpoint: a signed-out token ends by itself.",)

MICROSOFT: Final = Provider(
    settings={
        "displayName": "Microsoft",
        "scopeDescriptions": _SCOPES,
        "type": "oidc",
        "scopes": ["openid", "offline_access"],
        "clientAuthentication": "body",
    },
    refresh=_REFRESH,
    sources=(*_SOURCES, Source(f"{_PAGES}/v2-protocols-oidc", _READ_ON)),
    subject="`sub` of the ID token, which differs from client to client",
    pkce=_PKCE,
    issuer_form="https://login.microsoftonline.com/TENANT-ID/v2.0",
    apis=(_GRAPH,),
    notes=_NOTES,
)

# Its ID tokens name the user's own tenant as issuer, which no discovery document does. A `sub`
# counts within its tenant.
MICROSOFT_MULTITENANT: Final = Provider(
    settings={
        "displayName": "Microsoft",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": (
            "https://login.microsoftonline.com/organizations/oauth2/v2.0/authorize"
        ),
        "tokenEndpoint": "https://login.microsoftonline.com/organizations/oauth2/v2.0/token",
        "subjectFrom": "idToken",
        "subjectField": ["tid", "sub"],
        "scopes": ["openid", "offline_access"],
    },
    refresh=_REFRESH,
    sources=(*_SOURCES, Source(f"{_PAGES}/v2-protocols-oidc", _READ_ON)),
    subject="`tid` and `sub` of the ID token; `sub` differs from client to client",
    pkce=_PKCE,
    apis=(_GRAPH,),
    notes=(
        "Work and school accounts of every tenant may sign in. Whom you admit is decided by the"
        " client's registration and by who can reach the MCP server.",
        *_NOTES,
    ),
)
