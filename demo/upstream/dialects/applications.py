"""Applications with an API of their own: plain OAuth 2.0, in a dialect each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from demo.upstream.dialects.behaviour import Answer, Behaviour, Issued, standard

_HOUR: Final = 3600
_DAY: Final = 86400

# Errors come with status 200; scopes are listed with commas.
_GITHUB_APP: Final = Behaviour(
    source=(
        "https://docs.github.com/en/apps/creating-github-apps"
        "/authenticating-with-a-github-app/refreshing-user-access-tokens"
    ),
    authorize="github.com/login/oauth/authorize",
    token="github.com/login/oauth/access_token",
    userinfo="api.github.com/user",
    person=lambda one: {"id": int(one.id), "login": one.name},
    credentials=("body",),
    first=lambda issued: standard(28800, kind="bearer")(replace(issued, scopes=())),
    again=lambda issued: standard(28800, kind="bearer")(replace(issued, scopes=())),
    lifetime=28800,
    ends_access_token=True,
    idle=182 * _DAY,
    refused=Answer(200, {"error": "bad_refresh_token"}),
    bad_client=Answer(200, {"error": "incorrect_client_credentials"}),
)
_GITHUB_OAUTH_APP: Final = replace(
    _GITHUB_APP,
    source="https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps",
    gives_refresh_token=False,
    first=standard(None, separator=",", kind="bearer"),
    lifetime=None,
    refused=Answer(200, {"error": "bad_verification_code"}),
)

# A refresh "invalidates the existing access_token and refresh_token".
_GITLAB: Final = Behaviour(
    source="https://docs.gitlab.com/api/oauth2/",
    issuer="gitlab.com",
    authorize="gitlab.com/oauth/authorize",
    token="gitlab.com/oauth/token",
    userinfo="gitlab.com/oauth/userinfo",
    first=standard(7200),
    again=standard(7200),
    lifetime=7200,
    ends_access_token=True,
    revocation="gitlab.com/oauth/revoke",
    revoked=Answer(200, {}),
)


def _slack_installed(issued: Issued) -> dict[str, Any]:
    user: dict[str, Any] = {
        "id": f"U{issued.person.id}",
        "scope": ",".join(issued.scopes),
        "access_token": issued.access_token,
        "token_type": "user",
    }
    if issued.refresh_token is not None:
        user |= {"expires_in": 43200, "refresh_token": issued.refresh_token}
    return {"ok": True, "team": {"id": f"T{issued.person.group}"}, "authed_user": user}


def _slack_refreshed(issued: Issued) -> dict[str, Any]:
    return {"ok": True} | standard(43200, separator=",", kind="user")(issued)


# The refresh token that was used "is revoked after a short grace period"; how short, is not said.
_SLACK_ROTATING: Final = Behaviour(
    source="https://docs.slack.dev/authentication/using-token-rotation",
    authorize="slack.com/oauth/v2/authorize",
    token="slack.com/api/oauth.v2.access",
    userinfo="slack.com/api/auth.test",
    person=lambda one: {"ok": True, "user_id": f"U{one.id}", "team_id": f"T{one.group}"},
    bad_token=Answer(200, {"ok": False, "error": "token_revoked"}),
    scope_parameter="user_scope",
    scope_separator=",",
    first=_slack_installed,
    again=_slack_refreshed,
    lifetime=43200,
    spent_lives=30,
    refused=Answer(200, {"ok": False, "error": "invalid_refresh_token"}),
    bad_client=Answer(200, {"ok": False, "error": "bad_client_secret"}),
    revocation="slack.com/api/auth.revoke",
    revoked=Answer(200, {"ok": True, "revoked": True}),
    not_revoked=Answer(200, {"ok": False, "error": "invalid_auth"}),
    revocation_ends="token",
)
_SLACK: Final = replace(
    _SLACK_ROTATING,
    source="https://docs.slack.dev/authentication/installing-with-oauth",
    gives_refresh_token=False,
    lifetime=None,
    refused=Answer(200, {"ok": False, "error": "invalid_code"}),
    revocation_ends="grant",
)

# Ten minutes of leeway, for the access token as for the refresh token.
_ATLASSIAN: Final = Behaviour(
    source=(
        "https://community.developer.atlassian.com/t/the-old-access-token-will-be-revoked-"
        "during-the-refresh-token-exchange/83103"
    ),
    authorize="auth.atlassian.com/authorize",
    token="auth.atlassian.com/oauth/token",
    userinfo="api.atlassian.com/me",
    person=lambda one: {"account_id": one.id, "name": one.name},
    wants={"audience": "api.atlassian.com", "prompt": "consent"},
    offline_scope="offline_access",
    credentials=("body",),
    first=standard(_HOUR),
    again=standard(_HOUR),
    lifetime=_HOUR,
    spent_lives=600,
    reuse_ends_grant=True,
    idle=90 * _DAY,
    refused=Answer(403, {"error": "invalid_grant", "error_description": "Unknown or invalid"}),
    bad_client=Answer(401, {"error": "access_denied", "error_description": "Unauthorized"}),
)


def _notion(issued: Issued) -> dict[str, Any]:
    return {
        "access_token": issued.access_token,
        "token_type": "bearer",
        "refresh_token": issued.refresh_token,
        "bot_id": f"bot-{issued.access_token}",
        "workspace_id": issued.person.group,
        "workspace_name": None,
        "owner": {"type": "user", "user": {"object": "user", "id": issued.person.id}},
        "duplicated_template_id": None,
        "request_id": "6a1f",
    }


_NOTION: Final = Behaviour(
    source="https://developers.notion.com/reference/refresh-a-token",
    authorize="api.notion.com/v1/oauth/authorize",
    token="api.notion.com/v1/oauth/token",
    userinfo="api.notion.com/v1/users/me",
    person=lambda one: {"object": "user", "id": f"bot of {one.id}", "type": "bot"},
    wants={"owner": "user"},
    credentials=("basic",),
    written_as="json",
    wants_headers=("Notion-Version",),
    first=_notion,
    again=_notion,
    lifetime=None,
    refused=Answer(400, {"object": "error", "status": 400, "code": "invalid_grant"}),
    bad_client=Answer(401, {"object": "error", "status": 401, "code": "unauthorized"}),
    revocation="api.notion.com/v1/oauth/revoke",
    revoked=Answer(200, {"request_id": "6a1f"}),
)
# Asked for with commas, answered with spaces. A revocation names `refresh_token`, not `token`.
_LINEAR: Final = Behaviour(
    source="https://linear.app/developers/oauth-2-0-authentication",
    authorize="linear.app/oauth/authorize",
    token="api.linear.app/oauth/token",
    scope_separator=",",
    first=standard(86399),
    again=standard(86399),
    lifetime=86399,
    revocation="api.linear.app/oauth/revoke",
    revocation_parameter="refresh_token",
    revokes="refresh",
)


def _asana(issued: Issued) -> dict[str, Any]:
    person = issued.person
    return standard(_HOUR, kind="bearer")(issued) | {"data": {"id": person.id, "name": person.name}}


# "Bearer tokens are rejected" by the revocation endpoint.
_ASANA: Final = Behaviour(
    source="https://developers.asana.com/docs/oauth",
    authorize="app.asana.com/-/oauth_authorize",
    token="app.asana.com/-/oauth_token",
    credentials=("body",),
    first=_asana,
    again=_asana,
    lifetime=_HOUR,
    rotates=False,
    revocation="app.asana.com/-/oauth_revoke",
    revokes="refresh",
)


def _figma(issued: Issued) -> dict[str, Any]:
    answer = {"access_token": issued.access_token, "expires_in": 90 * _DAY}
    if issued.refresh_token is not None:
        answer |= {"refresh_token": issued.refresh_token, "user_id_string": issued.person.id}
    return answer


# Its pages name no word for a refresh token that is not taken: only the shape of its errors.
_FIGMA: Final = Behaviour(
    source="https://github.com/figma/rest-api-spec/blob/main/openapi/openapi.yaml",
    authorize="www.figma.com/oauth",
    token="api.figma.com/v1/oauth/token",
    refresh="api.figma.com/v1/oauth/refresh",
    userinfo="api.figma.com/v1/me",
    person=lambda one: {"id": one.id, "handle": one.name},
    credentials=("basic",),
    first=_figma,
    again=_figma,
    lifetime=90 * _DAY,
    rotates=False,
    refused=Answer(400, {"error": True, "status": 400, "message": "Bad Request", "i18n": None}),
)
# A revocation is an API call with the access token, and has no body.
_DROPBOX: Final = Behaviour(
    source="https://github.com/dropbox/dropbox-api-spec/blob/main/auth.stone",
    authorize="www.dropbox.com/oauth2/authorize",
    token="api.dropboxapi.com/oauth2/token",
    offline={"token_access_type": "offline"},
    first=lambda issued: standard(14400)(issued) | {"account_id": f"dbid:{issued.person.id}"},
    again=lambda issued: {
        "access_token": issued.access_token, "token_type": "bearer", "expires_in": 14400,
    },
    lifetime=14400,
    rotates=False,
    revocation="api.dropboxapi.com/2/auth/token/revoke",
    revokes="bearer",
    not_revoked=Answer(401, {"error": {".tag": "invalid_access_token"}}),
)  # fmt: skip


def _salesforce(issued: Issued) -> dict[str, Any]:
    """No lifetime: the organisation's session time is not told."""
    return standard(None)(issued) | {
        "instance_url": "https://acme.my.salesforce.com",
        "id": f"https://login.salesforce.com/id/{issued.person.group}/{issued.person.id}",
        "issued_at": "1700000000000",
        "signature": "c2lnbmF0dXJl",
    }


_SALESFORCE_ROTATING: Final = Behaviour(
    source=("https://help.salesforce.com/s/articleView/remoteaccess_oauth_refresh_token_flow.htm"),
    authorize="login.salesforce.com/services/oauth2/authorize",
    token="login.salesforce.com/services/oauth2/token",
    credentials=("body",),
    offline_scope="refresh_token",
    first=_salesforce,
    again=_salesforce,
    lifetime=None,
    refused=Answer(
        400, {"error": "invalid_grant", "error_description": "expired access/refresh token"}
    ),
    revocation="login.salesforce.com/services/oauth2/revoke",
    not_revoked=Answer(400, {"error": "invalid_token"}),
)
_SALESFORCE: Final = replace(_SALESFORCE_ROTATING, rotates=False)


def _hubspot(issued: Issued) -> dict[str, Any]:
    """`scopes` is a list, and the refresh token comes with each answer."""
    return {
        "access_token": issued.access_token,
        "token_type": "bearer",
        "token_use": "access_token",
        "expires_in": 1800,
        "hub_id": int(issued.person.group),
        "user_id": int(issued.person.id),
        "scopes": list(issued.scopes),
    } | ({} if issued.refresh_token is None else {"refresh_token": issued.refresh_token})


_HUBSPOT: Final = Behaviour(
    source="https://developers.hubspot.com/docs/api-reference/auth-oauth-v3/guide",
    authorize="app.hubspot.com/oauth/authorize",
    token="api.hubapi.com/oauth/v3/token",
    credentials=("body",),
    first=_hubspot,
    again=_hubspot,
    lifetime=1800,
    rotates=False,
    refused=Answer(400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid"}),
    revocation="api.hubapi.com/oauth/v3/token/revoke",
    revokes="refresh",
)
# "Access token becomes invalid immediately; refresh token becomes invalid immediately".
_ZOOM: Final = Behaviour(
    source="https://developers.zoom.us/docs/integrations/oauth/",
    authorize="zoom.us/oauth/authorize",
    token="zoom.us/oauth/token",
    userinfo="api.zoom.us/v2/users/me",
    person=lambda one: {"id": one.id, "first_name": one.name},
    credentials=("basic",),
    first=standard(3599, kind="bearer"),
    again=standard(3599, kind="bearer"),
    lifetime=3599,
    refused=Answer(400, {"reason": "Invalid Token!", "error": "invalid_grant"}),
    revocation="zoom.us/oauth/revoke",
    revokes="access",
    revocation_ends="person",
)

APPLICATIONS: Final[Mapping[str, Behaviour]] = {
    "asana": _ASANA,
    "atlassian": _ATLASSIAN,
    "dropbox": _DROPBOX,
    "figma": _FIGMA,
    "github-app": _GITHUB_APP,
    "github-oauth-app": _GITHUB_OAUTH_APP,
    "gitlab": _GITLAB,
    "hubspot": _HUBSPOT,
    "linear": _LINEAR,
    "notion": _NOTION,
    "salesforce": _SALESFORCE,
    "salesforce with rotation": _SALESFORCE_ROTATING,
    "slack": _SLACK,
    "slack with rotation": _SLACK_ROTATING,
    "zoom": _ZOOM,
}
