"""Real providers' dialects, spoken by a fake one: each preset signs in, refreshes and releases."""

import base64
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from authserver.config.loader import load
from authserver.config.provider_presets import PRESETS
from chassis.process import ConfigurationError
from demo.pki import CertificateAuthority, write_credential
from tests.fakes.web_site import WebSite, web_site
from tests.support.database_file import count
from tests.support.deployment import Answer, Deployment, Pkce, configuration_of, deployed
from tests.support.deployment import write_material as material
from tests.support.forged_tokens import claims_of
from tests.support.sign_in_steps import ExchangeRequest, ask, consent, query_of
from tests.support.two_upstreams import two_upstreams

GITHUB = {
    "preset": "github",
    "scopes": ["repo", "gist"],
}
RFC_7009 = {
    "revocationMethod": "POST",
    "revocationSends": "refreshToken",
    "revocationParameter": "token",
}
SLACK = {
    "preset": "slack",
    "scopes": ["search:read", "users:read"],
}
ATLASSIAN = {"preset": "atlassian", "scopes": ["offline_access", "read:me", "read:jira-work"]}


@asynccontextmanager
async def speaking(
    folder: Path, upstream: dict[str, Any], tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Deployment, WebSite]]:
    """An authserver whose only upstream is a preset, with its endpoints moved to a web site."""
    async with web_site(tls) as site:
        moved = {
            "name": "acme",
            "clientId": "tokenward",
            "clientSecretFile": "upstream-secret",
            "authorizationEndpoint": f"{site.url}/authorize",
            "tokenEndpoint": f"{site.url}/token",
            "revocationEndpoint": f"{site.url}/revoke",
        }
        if upstream["preset"] not in ("slack", "notion"):
            moved["userinfoEndpoint"] = f"{site.url}/user"
        async with deployed(folder, upstreams=[moved | upstream]) as world:
            yield world, site


async def begun(world: Deployment) -> tuple[ExchangeRequest, dict[str, str], str, Pkce]:
    """Consent given; the upstream's authorization request, and who asked."""
    client_id, pkce = str((await world.register())["client_id"]), Pkce()
    asked = await ask(world, world.authorize_url(client_id, pkce))
    location = (await consent(world, asked)).headers["Location"]
    return asked, query_of(location), client_id, pkce


async def called_back(world: Deployment, asked: ExchangeRequest, state: str) -> Answer:
    path = f"/oauth/callback/acme?code=upstream-code&state={state}"
    return await world.call("GET", path, headers={"Cookie": asked.cookie})


async def released(world: Deployment) -> dict[str, Any]:
    """Sign in to the end; what the workload is given."""
    asked, query, client_id, pkce = await begun(world)
    back = query_of((await called_back(world, asked, query["state"])).headers["Location"])
    assert "code" in back, back
    tokens = (await world.redeem(client_id, back["code"], pkce)).json()
    answer = await world.exchange("mcp-servers/notes", tokens["access_token"])
    assert answer.status == 200, answer.text
    return answer.json() | {"jwt": tokens["access_token"]}


async def refused(world: Deployment) -> dict[str, str]:
    """Sign in as far as it goes; what the client is told."""
    asked, query, _, _ = await begun(world)
    return query_of((await called_back(world, asked, query["state"])).headers["Location"])


async def test_github_lists_scopes_with_commas_and_may_not_expire(tmp_path: Path) -> None:
    async with speaking(tmp_path, GITHUB) as (world, site):
        site.put("/user", {"id": 583231, "login": "octocat"})
        answer = {"access_token": "gho_1", "scope": "gist,repo", "token_type": "bearer"}
        site.put("/token", answer)
        found = await released(world)
        assert (found["access_token"], found["scope"]) == ("gho_1", "gist repo")
        assert "expires_in" not in found
        assert site.forms[0]["client_secret"] == "upstream secret canary"
        assert site.headers[1]["Authorization"] == "Bearer gho_1"


@pytest.mark.parametrize(
    ("more", "revoked"), [({"refresh_token": "ghr_1"}, "ghr_1"), ({}, "gho_1")]
)
async def test_what_ends_the_grant_is_revoked_with_the_last_session(
    tmp_path: Path, more: dict[str, str], revoked: str
) -> None:
    async with speaking(tmp_path, GITHUB | RFC_7009) as (world, site):
        await revoke_the_only_session(world, site, more)
        assert site.forms[-1]["token"] == revoked


async def test_github_deletes_the_grant_of_an_access_token(tmp_path: Path) -> None:
    async with speaking(tmp_path, GITHUB) as (world, site):
        await revoke_the_only_session(world, site, {"refresh_token": "ghr_1"})
        assert site.objects[-1] == {"access_token": "gho_1"}
        assert site.headers[-1]["Authorization"].startswith("Basic ")


async def revoke_the_only_session(world: Deployment, site: WebSite, more: dict[str, str]) -> None:
    site.put("/user", {"id": 583231})
    site.put("/token", {"access_token": "gho_1", "token_type": "bearer"} | more)
    site.put("/revoke", {})
    jwt = (await released(world))["jwt"]
    fields = {"token": jwt, "client_id": claims_of(jwt)["client_id"]}
    assert (await world.call("POST", "/oauth/revoke", data=fields)).status == 200
    await world.server.drain()


async def test_githubs_form_encoded_answer_is_read_too(tmp_path: Path) -> None:
    async with speaking(tmp_path, GITHUB) as (world, site):
        site.put("/user", {"id": 583231})
        form = b"access_token=gho_1&scope=gist%2Crepo&token_type=bearer"
        site.put("/token", form, media_type="application/x-www-form-urlencoded")
        assert (await released(world))["scope"] == "gist repo"


async def test_githubs_error_with_status_200_signs_nobody_in(tmp_path: Path) -> None:
    async with speaking(tmp_path, GITHUB) as (world, site):
        error = {"error": "bad_verification_code", "error_description": "canary of the upstream"}
        site.put("/token", error)
        told = await refused(world)
        assert told["error"] == "server_error"
        assert "canary" not in str(told)
        assert await count(tmp_path, "users") == 0


async def test_github_users_are_told_apart_by_id(tmp_path: Path) -> None:
    async with speaking(tmp_path, GITHUB) as (world, site):
        site.put("/token", {"access_token": "gho_1", "token_type": "bearer"})
        for user in ({"id": 1, "login": "same"}, {"id": 2, "login": "same"}, {"id": 1}):
            site.put("/user", user)
            await released(world)
        assert await count(tmp_path, "users") == 2
        for bad in ({"id": 1.0}, {"id": True}, {"id": ""}, {"id": None}, {}, {"id": ["1"]}):
            site.put("/user", bad)
            assert "error" in await refused(world), bad
        site.put("/user", {"id": 3}, status=401)
        assert "error" in await refused(world)
        assert await count(tmp_path, "users") == 2


async def test_a_github_apps_refresh_token_rotates(tmp_path: Path) -> None:
    async with speaking(tmp_path, GITHUB) as (world, site):
        site.put("/user", {"id": 1})
        first = {"access_token": "ghu_1", "token_type": "bearer", "expires_in": 28800}
        site.put("/token", first | {"refresh_token": "ghr_1"})
        found = await released(world)
        site.put("/token", first | {"access_token": "ghu_2", "refresh_token": "ghr_2"})
        world.clock.advance(60)
        rejected = base64.urlsafe_b64encode(hashlib.sha256(b"ghu_1").digest()).rstrip(b"=")
        again = await world.exchange(
            "mcp-servers/notes", found["jwt"], rejected_token_sha256=rejected.decode()
        )
        assert again.json()["access_token"] == "ghu_2"
        assert site.forms[-1]["refresh_token"] == "ghr_1"


async def test_slacks_user_token_is_found_where_slack_puts_it(tmp_path: Path) -> None:
    async with speaking(tmp_path, SLACK) as (world, site):
        site.put(
            "/token",
            {
                "ok": True,
                "access_token": "xoxb-the-bot",
                "token_type": "bot",
                "team": {"id": "T1", "name": "Team"},
                "authed_user": {
                    "id": "U1",
                    "scope": "search:read,users:read",
                    "access_token": "xoxp-the-user",
                    "token_type": "user",
                },
            },
        )
        asked, query, _, _ = await begun(world)
        assert query["user_scope"] == "search:read,users:read"
        assert "scope" not in query
        await called_back(world, asked, query["state"])
        found = await released(world)
        assert found["access_token"] == "xoxp-the-user"
        assert found["scope"] == "search:read users:read"
        assert await count(tmp_path, "users") == 1


async def test_a_slack_user_of_another_team_is_another_user(tmp_path: Path) -> None:
    async with speaking(tmp_path, SLACK) as (world, site):
        for team in ("T1", "T2", "T1"):
            user = {"id": "U1", "access_token": "xoxp-1", "token_type": "user"}
            site.put("/token", {"ok": True, "team": {"id": team}, "authed_user": user})
            await released(world)
        assert await count(tmp_path, "users") == 2


async def test_slacks_error_with_status_200_signs_nobody_in(tmp_path: Path) -> None:
    async with speaking(tmp_path, SLACK) as (world, site):
        site.put("/token", {"ok": False, "error": "invalid_code"})
        assert "error" in await refused(world)
        user = {"id": "U1", "access_token": "xoxp-1", "token_type": "user"}
        site.put("/token", {"ok": False, "error": "invalid_code", "authed_user": user})
        assert "error" in await refused(world)


NOTION = {"preset": "notion"}
# https://developers.notion.com/reference/create-a-token, read on 2026-11-29.
NOTION_ANSWER = {
    "access_token": "ntn_1",
    "token_type": "bearer",
    "refresh_token": "nrt_1",
    "bot_id": "b3414d65",
    "workspace_icon": None,
    "workspace_name": "canary of a workspace",
    "workspace_id": "W1",
    "owner": {"type": "user", "user": {"object": "user", "id": "U1", "type": "person"}},
    "duplicated_template_id": None,
    "request_id": "6a1f",
}


async def test_notion_is_asked_in_json_as_a_basic_client_and_names_its_user(
    tmp_path: Path,
) -> None:
    async with speaking(tmp_path, NOTION) as (world, site):
        site.put("/token", NOTION_ANSWER)
        asked, query, client_id, pkce = await begun(world)
        assert (query["owner"], query.get("scope", "")) == ("user", "")
        back = query_of((await called_back(world, asked, query["state"])).headers["Location"])
        jwt = (await world.redeem(client_id, back["code"], pkce)).json()["access_token"]
        found = (await world.exchange("mcp-servers/notes", jwt)).json()
        assert found["access_token"] == "ntn_1"
        assert "expires_in" not in found
        assert "canary" not in str(found)
        [sent], [headers] = site.objects, site.headers
        assert sent["grant_type"] == "authorization_code"
        assert sent["redirect_uri"] == f"{world.issuer}/oauth/callback/acme"
        assert "client_secret" not in sent
        assert headers["Content-Type"] == "application/json"
        assert headers["Notion-Version"] == "2026-03-11"
        assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == (
            b"tokenward:upstream%20secret%20canary"
        )


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (200, NOTION_ANSWER | {"access_token": "ntn_2", "refresh_token": "nrt_2"}, None),
        (200, NOTION_ANSWER | {"access_token": "ntn_2", "refresh_token": None}, None),
        (400, {"object": "error", "status": 400, "code": "invalid_grant"}, "invalid_grant"),
        (400, {"error": "invalid_grant"}, "invalid_grant"),
        (400, {"object": "error", "code": "validation_error"}, "temporarily_unavailable"),
        (529, {"object": "error", "code": "service_overload"}, "temporarily_unavailable"),
    ],
    ids=str,
)
async def test_notions_refresh_speaks_json_both_ways(
    tmp_path: Path, status: int, answer: dict[str, Any], error: str | None
) -> None:
    async with speaking(tmp_path, NOTION) as (world, site):
        site.put("/token", NOTION_ANSWER)
        jwt = (await released(world))["jwt"]
        site.put("/token", answer, status=status)
        world.clock.advance(60)
        rejected = base64.urlsafe_b64encode(hashlib.sha256(b"ntn_1").digest()).rstrip(b"=")
        again = (
            await world.exchange("mcp-servers/notes", jwt, rejected_token_sha256=rejected.decode())
        ).json()
        assert site.objects[-1] == {"grant_type": "refresh_token", "refresh_token": "nrt_1"}
        assert again.get("error") == error, again
        if error is None:
            assert again["access_token"] == "ntn_2"


async def test_two_workspaces_of_one_notion_user_are_two_users(tmp_path: Path) -> None:
    async with speaking(tmp_path, NOTION) as (world, site):
        for workspace in ("W1", "W2", "W1"):
            site.put("/token", NOTION_ANSWER | {"workspace_id": workspace})
            await released(world)
        assert await count(tmp_path, "users") == 2
        for bad in ({"owner": {"workspace": True}}, {"workspace_id": None}, {"owner": None}):
            site.put("/token", NOTION_ANSWER | bad)
            assert "error" in await refused(world), bad
        assert await count(tmp_path, "users") == 2


async def test_notions_token_is_revoked_in_json(tmp_path: Path) -> None:
    async with speaking(tmp_path, NOTION) as (world, site):
        site.put("/token", NOTION_ANSWER)
        site.put("/revoke", {"request_id": "6a1f"})
        jwt = (await released(world))["jwt"]
        fields = {"token": jwt, "client_id": claims_of(jwt)["client_id"]}
        assert (await world.call("POST", "/oauth/revoke", data=fields)).status == 200
        await world.server.drain()
        assert site.visits[-1] == "/revoke"
        assert set(site.objects[-1]) == {"token"}


async def test_atlassian_is_asked_with_its_audience_and_known_by_account(tmp_path: Path) -> None:
    async with speaking(tmp_path, ATLASSIAN) as (world, site):
        site.put("/user", {"account_id": "5b10a2844c20165700ede21g", "email": "a@example.com"})
        answer = {"access_token": "at_1", "token_type": "Bearer", "expires_in": 3600}
        site.put("/token", answer | {"scope": "read:me read:jira-work", "refresh_token": "rt_1"})
        asked, query, _, _ = await begun(world)
        assert (query["audience"], query["prompt"]) == ("api.atlassian.com", "consent")
        assert query["scope"] == "offline_access read:me read:jira-work"
        await called_back(world, asked, query["state"])
        assert (await released(world))["access_token"] == "at_1"


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("google", {"access_type": "offline", "prompt": "consent"}),
        ("microsoft", {}),
        ("okta", {}),
        ("auth0", {}),
        ("gitlab", {}),
    ],
)
async def test_openid_presets_sign_in_with_their_parameters(
    tmp_path: Path, preset: str, parameters: dict[str, str]
) -> None:
    scopes = list(PRESETS[preset]["scopes"])
    upstream = {"name": "acme", "preset": preset, "clientId": "tokenward"}
    async with two_upstreams() as (first, _):
        upstream |= {"issuer": first.issuer, "clientSecretFile": "upstream-secret"}
        async with deployed(tmp_path, upstreams=[upstream]) as world:
            first.redirect_uri = f"{world.issuer}/oauth/callback/acme"
            _, query, _, _ = await begun(world)
            assert {name: query.get(name) for name in parameters} == parameters
            assert query["scope"] == " ".join(scopes)
            assert (await world.signed_in("alice")).scope == "mcp"


@pytest.mark.parametrize(("upstreams", "good"), [(["linear"], False), (["github", "linear"], True)])
def test_linear_names_nobody_and_stands_behind_an_upstream_that_does(
    tmp_path: Path, upstreams: list[str], good: bool
) -> None:
    authority = CertificateAuthority.create("all")
    material(tmp_path, authority, authority)
    both: list[dict[str, Any]] = [
        {"name": "linear", "preset": "linear", "clientId": "tokenward"},
        {"name": "github", "preset": "github", "clientId": "tokenward", "scopes": ["gist"]},
    ]
    configuration = yaml.safe_load(
        _yaml(tmp_path, [one | {"clientSecretFile": "upstream-secret"} for one in both])
    )
    for resource in configuration["resources"]:
        resource["upstreams"] = upstreams
    file = tmp_path / "authserver.yaml"
    file.write_text(yaml.safe_dump(configuration))
    if good:
        assert load(file).upstreams[0].apis == ()
    else:
        with pytest.raises(ConfigurationError) as bad:
            load(file)
        assert any("userinfoEndpoint" in str(fault) for fault in bad.value.faults), bad.value.faults


def test_every_promised_preset_is_there() -> None:
    assert set(PRESETS) == {
        "github", "github-app", "github-oauth-app", "google", "microsoft", "slack", "okta",
        "auth0", "atlassian", "gitlab", "linear", "notion", "generic", "asana", "cognito",
        "dropbox", "figma", "generic-oidc", "hubspot", "keycloak", "microsoft-multitenant",
        "salesforce", "zoom",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("upstream", "place", "problem"),
    [
        ({"preset": "gitbub"}, "upstreams[0].preset", "github"),
        ({"preset": "okta"}, "upstreams[0].issuer", "required"),
        ({"preset": "generic"}, "upstreams[0]", "type"),
        (
            {"preset": "github", "authorizeParameters": {"state": "mine"}},
            "upstreams[0].authorizeParameters",
            "state",
        ),
        ({"preset": "github", "caFile": "signing.pem"}, "upstreams[0].caFile", "certificate"),
        ({"preset": "notion", "requestFormat": "xml"}, "upstreams[0].requestFormat", "json"),
        *(
            (
                {"preset": "notion", "requestHeaders": headers},
                "upstreams[0].requestHeaders",
                problem,
            )
            for headers, problem in (
                ({"Authorization": "x"}, "authorization: set by us"),
                ({"content-TYPE": "text/plain"}, "content-type: set by us"),
                ({"Cookie": "a=b"}, "cookie: set by us"),
                ({"a b": "x"}, "is not a header's name"),
                ({"X-A": "b\r\nX-C: d"}, "must be printable ASCII"),
                ({"X-A": ""}, "must be printable ASCII"),
            )
        ),
    ],
)
def test_a_bad_upstream_is_named_with_its_fault(
    tmp_path: Path, upstream: dict[str, Any], place: str, problem: str
) -> None:
    authority = CertificateAuthority.create("all")
    material(tmp_path, authority, authority)
    file = tmp_path / "authserver.yaml"
    file.write_text(_yaml(tmp_path, [{"name": "acme", "clientId": "x"} | upstream]))
    with pytest.raises(ConfigurationError) as bad:
        load(file)
    said = [str(fault) for fault in bad.value.faults]
    assert any(line.startswith(place) and problem in line for line in said), said


def _yaml(folder: Path, upstreams: list[dict[str, Any]]) -> str:
    configuration = configuration_of(folder, "http://127.0.0.1:1", "http://127.0.0.1:2")
    return yaml.safe_dump(configuration | {"upstreams": upstreams})


async def test_a_private_authority_is_trusted_for_its_upstream_only(tmp_path: Path) -> None:
    authority, folder = CertificateAuthority.create("private"), tmp_path / "site"
    folder.mkdir()
    write_credential(folder, authority.issue_server(ips=("127.0.0.1",)))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    (tmp_path / "private.pem").write_bytes(authority.certificate_pem)
    for trust, signed_in in (({"caFile": "private.pem"}, True), ({}, False)):
        work = tmp_path / str(signed_in)
        work.mkdir()
        (work / "private.pem").write_bytes(authority.certificate_pem)
        async with speaking(work, GITHUB | trust, tls) as (world, site):
            site.put("/user", {"id": 1})
            site.put("/token", {"access_token": "gho_1", "token_type": "bearer"})
            asked, query, _, _ = await begun(world)
            back = await called_back(world, asked, query["state"])
            assert ("code" in query_of(back.headers["Location"])) is signed_in


async def test_a_posted_answer_is_bounced_to_where_our_cookie_is_sent(tmp_path: Path) -> None:
    """A form post from another site brings no Lax cookie; the GET after it does."""
    async with speaking(tmp_path, GITHUB | {"responseMode": "form_post"}) as (world, site):
        site.put("/user", {"id": 1})
        site.put("/token", {"access_token": "gho_1", "token_type": "bearer"})
        asked, query, _, _ = await begun(world)
        assert query["response_mode"] == "form_post"
        fields = {"code": "c", "state": query["state"], "user": '{"email": "canary"}'}
        bounced = await world.call("POST", "/oauth/callback/acme", data=fields)
        assert bounced.status == 303
        location = bounced.headers["Location"]
        assert location.startswith(f"{world.issuer}/oauth/callback/acme?")
        assert query_of(location) == {"code": "c", "state": query["state"]}
        back = await world.call("GET", location, headers={"Cookie": asked.cookie})
        assert "code" in query_of(back.headers["Location"])


async def test_a_posted_answer_is_refused_where_none_was_asked_for(tmp_path: Path) -> None:
    async with speaking(tmp_path, GITHUB) as (world, _):
        _, query, _, _ = await begun(world)
        fields = {"code": "c", "state": query["state"]}
        assert (await world.call("POST", "/oauth/callback/acme", data=fields)).status == 405
        assert (await world.call("POST", "/oauth/callback/other", data=fields)).status == 405


async def test_another_account_is_asked_for_upstream(tmp_path: Path) -> None:
    async with speaking(tmp_path, ATLASSIAN) as (world, _):
        client_id = str((await world.register())["client_id"])
        asked = await ask(world, world.authorize_url(client_id, Pkce()))
        location = (await consent(world, asked, "allow_other")).headers["Location"]
        assert query_of(location)["prompt"] == "select_account"
