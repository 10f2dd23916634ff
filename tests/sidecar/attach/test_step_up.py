"""An API says that a scope is missing: the caller gets a challenge for its MCP client, or its 403.

Each provider says so in its own way; what the fakes answer here is what the sources of the presets
quote.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from authserver.config.preset_apis import PRESET_APIS
from authserver.config.upstream_apis import ApiSettings
from tests.fakes.authserver import Received, release
from tests.sidecar.attach.harness import PAGE, TOKEN, Attached, Called
from tests.sidecar.harness import JWT

ASKABLE = ("read", "repo", "delete")
CHALLENGE = "mcp github/repo"
WIDER = "canary-wider"
RFC_6750 = {"WWW-Authenticate": 'Bearer realm="api", error="insufficient_scope", scope="repo"'}


def rule(**changes: Any) -> dict[str, Any]:
    return {"askable": list(ASKABLE), "any_of": False} | changes


def describe(a: Attached, **changes: Any) -> None:
    """The API with a rule, and an authserver that asks for what is missing."""
    apis = [a.describe(missing_scope=rule(**changes))]

    async def answer(received: Received) -> web.StreamResponse:
        if "missing_scope" in received.form:
            return web.json_response(
                {"error": "insufficient_scope", "scope": CHALLENGE}, status=403
            )
        return release(access_token=TOKEN, apis=apis, scope="read")

    a.r.authserver.always(answer)


def refusing(
    a: Attached,
    status: int = 403,
    headers: Mapping[str, str] = RFC_6750,
    body: Any = None,
    unless: str = "",
) -> None:
    """The API refuses every token but `unless`."""

    async def handle(_: web.BaseRequest, called: Called) -> web.StreamResponse:
        if unless and called.values("authorization") == [f"Bearer {unless}"]:
            return web.Response(body=PAGE, content_type="application/json")
        members = {"message": "no"} if body is None else body
        return web.json_response(members, status=status, headers=headers)

    a.api.handle = handle


def asked(a: Attached) -> list[str]:
    """For which scopes the authserver was asked to ask the user."""
    forms = [received.form for received in a.r.authserver.received]
    return [form["missing_scope"] for form in forms if "missing_scope" in form]


async def test_a_missing_scope_is_answered_with_a_challenge_for_the_mcp_client(
    a: Attached,
) -> None:
    describe(a)
    refusing(a)
    answer = await a.call("/repos", "POST", data=b"x")
    assert (answer.status, answer.error) == (403, "insufficient_scope")
    assert (answer.json["action"], answer.json["scope"]) == ("reauthenticate", CHALLENGE)
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="insufficient_scope", ')
    assert f'scope="{CHALLENGE}"' in challenge
    assert 'resource_metadata="https://github-mcp.example.com/.well-known/' in challenge
    assert asked(a) == ["repo"]
    assert a.r.authserver.received[-1].form["audience"] == "github"
    assert a.counted("insufficient_scope") == 1


GOOGLE = {
    "WWW-Authenticate": 'Bearer realm="https://accounts.google.com/", error="insufficient_scope", '
    'scope="https://www.googleapis.com/auth/drive https://www.googleapis.com/auth/drive.readonly"'
}
GITHUB = {"X-OAuth-Scopes": "read:user, gist", "X-Accepted-OAuth-Scopes": "admin:org, read:org"}
GITLAB = {"error": "insufficient_scope", "error_description": "more", "scope": "api read_api"}
SLACK = {"ok": False, "error": "missing_scope", "needed": "chat:write", "provided": "users:read"}


@pytest.mark.parametrize(
    ("preset", "askable", "status", "headers", "body", "scope"),
    [
        (
            "google",
            ["https://www.googleapis.com/auth/drive.readonly"],
            403,
            GOOGLE,
            None,
            "https://www.googleapis.com/auth/drive.readonly",
        ),
        ("github", ["read:user", "read:org", "admin:org"], 403, GITHUB, None, "read:org"),
        ("github-oauth-app", ["admin:org"], 403, GITHUB, None, "admin:org"),
        ("gitlab", ["read_api", "api"], 403, {}, GITLAB, "read_api"),
        ("slack", ["users:read", "chat:write"], 200, {}, SLACK, "chat:write"),
    ],
)
async def test_each_provider_is_understood_in_its_own_words(
    a: Attached,
    preset: str,
    askable: list[str],
    status: int,
    headers: Mapping[str, str],
    body: Any,
    scope: str,
) -> None:
    written = ApiSettings.model_validate(PRESET_APIS[preset][0]).answered(None, askable)
    described = written["missing_scope"]
    describe(a, **described)
    refusing(a, status, headers, body)
    assert (await a.call()).error == "insufficient_scope"
    assert asked(a) == [scope]


GITHUB_RULE = rule(
    any_of=True,
    headers={"accepted": "X-Accepted-OAuth-Scopes", "granted": "X-OAuth-Scopes"},
)
SLACK_RULE = rule(
    any_of=True,
    members={"status": 200, "error": "error", "value": "missing_scope", "scopes": "needed"},
)


@pytest.mark.parametrize(
    ("changes", "status", "headers", "body"),
    [
        # Not about scopes, or about none that this user may be asked for.
        ({}, 403, {}, None),
        ({}, 404, RFC_6750, None),
        ({}, 403, {"WWW-Authenticate": 'Bearer error="invalid_token", scope="repo"'}, None),
        ({}, 403, {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}, None),
        (
            {},
            403,
            {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="repo other"'},
            None,
        ),
        ({"askable": []}, 403, RFC_6750, None),
        # A token that has one of the accepted scopes was refused for another reason.
        (
            GITHUB_RULE,
            403,
            {"X-OAuth-Scopes": "repo, read", "X-Accepted-OAuth-Scopes": "repo"},
            None,
        ),
        (GITHUB_RULE, 403, {"X-OAuth-Scopes": "read", "X-Accepted-OAuth-Scopes": ""}, None),
        (GITHUB_RULE, 403, {"X-Accepted-OAuth-Scopes": "repo"}, None),
        (GITHUB_RULE, 404, {"X-OAuth-Scopes": "", "X-Accepted-OAuth-Scopes": "repo"}, None),
        # What the token has already is not asked for.
        (
            rule(any_of=True),
            403,
            {"WWW-Authenticate": RFC_6750["WWW-Authenticate"].replace("repo", "read")},
            None,
        ),
        (SLACK_RULE, 200, {}, {"ok": True, "text": "missing_scope"}),
        (SLACK_RULE, 200, {}, {"ok": False, "error": "missing_scope"}),
        (SLACK_RULE, 200, {}, {"ok": False, "error": "missing_scope", "needed": ["repo"]}),
        (SLACK_RULE, 200, {}, {"error": "other", "needed": "repo", "x": "missing_scope"}),
        (SLACK_RULE, 200, {}, ["missing_scope"]),
        (SLACK_RULE, 403, {}, {"error": "missing_scope", "needed": "repo"}),
    ],
)
async def test_any_other_refusal_of_the_api_is_passed_on_as_it_is(
    a: Attached, changes: dict[str, Any], status: int, headers: Mapping[str, str], body: Any
) -> None:
    describe(a, **changes)
    refusing(a, status, headers, body)
    answer = await a.call()
    assert (answer.status, answer.error) == (status, None)
    assert answer.json == (body or {"message": "no"})
    assert asked(a) == []


async def test_an_authserver_that_names_no_scopes_is_not_asked(a: Attached) -> None:
    refusing(a)
    assert (await a.call()).error is None
    assert asked(a) == []


async def test_after_a_no_the_caller_learns_that_asking_is_no_use(a: Attached) -> None:
    describe(a)
    refusing(a)
    a.r.authserver.then(
        lambda: release(access_token=TOKEN, apis=[a.describe(missing_scope=rule())]),
        lambda: web.json_response({"error": "insufficient_scope"}, status=403),
    )
    answer = await a.call()
    assert (answer.status, answer.error) == (403, "insufficient_scope")
    assert answer.json["action"] == "none"
    assert "WWW-Authenticate" not in answer.headers


async def test_a_token_that_has_the_scope_by_now_is_used_at_once(a: Attached) -> None:
    """Another client of the same user has stepped up; memory still holds the token of before."""
    a.api.tokens = {TOKEN, WIDER}
    refusing(a, unless=WIDER)
    apis = [a.describe(missing_scope=rule())]
    a.r.authserver.then(
        lambda: release(access_token=TOKEN, apis=apis),
        lambda: release(access_token=WIDER, apis=apis),
    )
    answer = await a.call("/repos", "POST", data=b"x")
    assert (answer.status, answer.raw) == (200, PAGE)
    assert [called.body for called in a.api.called] == [b"x", b"x"]


@pytest.mark.parametrize("status", [400, 429, 503])
async def test_where_the_authserver_cannot_say_the_apis_answer_goes_on(
    a: Attached, status: int
) -> None:
    apis = [a.describe(missing_scope=rule())]
    a.r.authserver.then(lambda: release(access_token=TOKEN, apis=apis))

    async def failing(_: Received) -> web.StreamResponse:
        return web.json_response({"error": "x"}, status=status)

    a.r.authserver.always(failing)
    refusing(a)
    answer = await a.call()
    assert (answer.status, answer.error, answer.json) == (403, None, {"message": "no"})


@pytest.mark.parametrize("size", [10, 65_536, 65_537, 300_000])
async def test_an_answer_that_was_looked_into_arrives_whole(a: Attached, size: int) -> None:
    describe(a, **SLACK_RULE)
    text = "y" * size

    async def handle(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)  # in chunks
        for piece in (b'{"text": "', text.encode(), b'"}'):
            await response.write(piece)
        await response.write_eof()
        return response

    a.api.handle = handle
    answer = await a.call()
    assert (answer.status, answer.json) == (200, {"text": text})


async def test_the_token_in_an_answer_that_was_looked_into_is_found(a: Attached) -> None:
    describe(a, **SLACK_RULE)
    refusing(a, 200, {}, {"ok": True, "echo": TOKEN})
    assert (await a.call()).error == "token_in_response"


NO_RULES: list[Any] = [
    7, [], {}, {"askable": ["a"]}, rule(any_of="yes"), rule(askable="repo"),
    rule(askable=["a b"]), rule(askable=[7]), rule(askable=['a"']), rule(askable=["a"] * 257),
    rule(headers=7), rule(headers={"accepted": "X"}),
    rule(headers={"accepted": "X", "granted": ""}),
    rule(members={"status": "200", "error": "e", "value": "v", "scopes": "s"}),
    rule(members={"status": 200, "error": "e", "value": "v"}),
    rule(members={"status": 200, "error": "e", "value": "v" * 65, "scopes": "s"}),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_RULES, ids=str)
async def test_a_rule_that_is_not_to_the_letter_is_no_release(a: Attached, value: Any) -> None:
    a.always(apis=[a.describe(missing_scope=value)])
    assert (await a.call()).status == 503


async def test_the_jwt_is_not_shown_to_the_log_of_a_step_up(
    a: Attached, capsys: pytest.CaptureFixture[str]
) -> None:
    describe(a)
    refusing(a)
    await a.call()
    captured = capsys.readouterr()
    assert JWT not in captured.out + captured.err
    assert TOKEN not in captured.out + captured.err
