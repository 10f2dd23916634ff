"""Messages, files, customers and meetings: plain OAuth 2.0, in a dialect each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from demo.upstream.dialects.behaviour import Answer, Behaviour, Issued, standard


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
    source=(
        "https://github.com/anthropics/knowledge-work-plugins/tree/main/partner-built/zoom-plugin"
        "/skills/oauth"
    ),
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


OFFICE: Final[Mapping[str, Behaviour]] = {
    "dropbox": _DROPBOX,
    "hubspot": _HUBSPOT,
    "salesforce": _SALESFORCE,
    "salesforce with rotation": _SALESFORCE_ROTATING,
    "slack": _SLACK,
    "slack with rotation": _SLACK_ROTATING,
    "zoom": _ZOOM,
}
