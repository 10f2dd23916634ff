"""HubSpot: one refresh token for ever, scopes in a list, and errors in a shape of its own."""

from typing import Final

from authserver.config.providers.shape import Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_SCOPES: Final = {
    "oauth": "Know which account you use",
    "crm.objects.contacts.read": "Read contacts",
    "crm.objects.contacts.write": "Create and change contacts",
    "crm.objects.companies.read": "Read companies",
    "crm.objects.companies.write": "Create and change companies",
    "crm.objects.deals.read": "Read deals",
    "crm.objects.deals.write": "Create and change deals",
    "tickets": "Read and change tickets",
}

HUBSPOT: Final = Provider(
    settings={
        "displayName": "HubSpot",
        "scopeDescriptions": _SCOPES,
        "type": "oauth2",
        "authorizationEndpoint": "https://app.hubspot.com/oauth/authorize",
        "tokenEndpoint": "https://api.hubapi.com/oauth/v3/token",
        "revocationEndpoint": "https://api.hubapi.com/oauth/v3/token/revoke",
        "scopes": ["oauth"],
        "answeredScopeMember": "scopes",
        "subjectFrom": "token",
        "subjectField": ["hub_id", "user_id"],
    },
    refresh=Refresh(
        rotation="never",
        spends=False,
        access_lasts="30 minutes",
        late="400 `status=BAD_REFRESH_TOKEN`, without `error`",
        dead_grant=("status=BAD_REFRESH_TOKEN", "category=BAD_REFRESH_TOKEN"),
    ),
    sources=(
        Source("https://developers.hubspot.com/docs/api-reference/auth-oauth-v3/guide", _READ_ON),
        Source(
            "https://github.com/HubSpot/HubSpot-public-api-spec-collection/tree/main"
            "/PublicApiSpecs/Auth/Oauth",
            _READ_ON,
        ),
    ),
    subject="`hub_id` and `user_id` of the token answer",
    api_base_urls=("https://api.hubapi.com",),
    notes=(
        "That the refresh token stays the same, and the word for one that is not taken, are known"
        " from other people's programs only.",
    ),
)
