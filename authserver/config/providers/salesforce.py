"""Salesforce: no lifetime in its answers, and the organisation's own host for its API."""

from typing import Any, Final

from authserver.config.providers.shape import READ_AND_WRITE, Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_SCOPES: Final = {
    "api": "Read and change what you can in Salesforce",
    "refresh_token": "Keep this access while you are away",
    "offline_access": "Keep this access while you are away",
    "id": "Know which account you use",
    "full": "Do everything that you can in Salesforce",
}

# Of the versions that its page of API versions names as supported, those since Winter '21.
_VERSIONS: Final = range(50, 69)
_RESOURCES: Final = ("limits", "parameterizedSearch", "query", "queryAll", "search", "sobjects")
_REST: Final[dict[str, Any]] = {
    "name": "rest",
    "baseUrlFrom": {
        "member": "instance_url",
        # Production, and what has a partition in its name: sandboxes, Developer Editions.
        "hosts": ["*.my.salesforce.com", "*.*.my.salesforce.com"],
    },
    "methods": READ_AND_WRITE,
    # Not `composite`, `graphql`, `jobs` and `tooling`: those run other requests or code.
    "pathPrefixes": [
        f"/services/data/v{version}.0/{resource}"
        for version in _VERSIONS
        for resource in _RESOURCES
    ],
    "excludedPaths": [
        # Passwords, and links that anybody may open.
        "/services/data/*/sobjects/**/password",
        "/services/data/*/sobjects/ContentDistribution",
        # Code that runs in the organisation.
        "/services/data/*/sobjects/ApexClass",
        "/services/data/*/sobjects/ApexComponent",
        "/services/data/*/sobjects/ApexPage",
        "/services/data/*/sobjects/ApexTrigger",
    ],
    "default": True,
    "credentialHeaders": ["X-SFDC-Session"],
    "credentialParameters": ["oauth_token", "sid"],
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
        Source(
            "https://help.salesforce.com/s/articleView/xcloud.remoteaccess_oauth_endpoints.htm",
            _READ_ON,
        ),
        Source(
            "https://developer.salesforce.com/docs/atlas.en-us.238.0.api_meta.meta/api_meta"
            "/meta_mydomainsettings.htm",
            _READ_ON,
        ),
        Source(
            "https://developer.salesforce.com/docs/platform/api-rest/guide"
            "/dome-discoveryresource.md",
            _READ_ON,
        ),
        Source(
            "https://developer.salesforce.com/docs/platform/connect-rest-api/guide/intro_api_eol",
            _READ_ON,
        ),
    ),
    subject="`id` of the token answer, an address that names organisation and user",
    pkce="S256",
    apis=(_REST,),
    notes=(
        "The word for a refused refresh token is known from other people's programs only.",
        "No preset knows where your users sign in: a sandbox is at `test.salesforce.com` or at its"
        " My Domain, and an organisation may close `login.salesforce.com`. Write the three"
        " endpoints over these then.",
        "The API is at the host of `instance_url` in the token answer, which is believed under"
        " `my.salesforce.com` only. Custom domains and other clouds have other hosts: write `apis`"
        " with a `baseUrlFrom` or `baseUrl` of your own.",
        "Attach has `sobjects`, queries, searches and limits of versions 50.0 to 68.0; name what"
        " else you need in `pathPrefixes`. `composite`, `graphql`, `jobs` and `tooling` run other"
        " requests or code, so rules of method and path end there.",
        "Answers do not say when a token ends: it is refreshed when the API refuses it and the"
        " server says so (`rejected_token`).",
    ),
)
