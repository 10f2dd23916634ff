"""Tools for teams with an API of their own: plain OAuth 2.0, in a dialect each."""

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
    # "Deleting an application's grant will also delete all OAuth tokens associated with the
    # application for the user."
    revocation="api.github.com/applications/tokenward/grant",
    revocation_method="DELETE",
    revokes="access",
    revocation_parameter="access_token",
    revoked=Answer(204, {}),
    not_revoked=Answer(404, {"message": "Not Found"}),
    revocation_ends="person",
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

TEAM_TOOLS: Final[Mapping[str, Behaviour]] = {
    "asana": _ASANA,
    "atlassian": _ATLASSIAN,
    "figma": _FIGMA,
    "github-app": _GITHUB_APP,
    "github-oauth-app": _GITHUB_OAUTH_APP,
    "gitlab": _GITLAB,
    "linear": _LINEAR,
    "notion": _NOTION,
}
