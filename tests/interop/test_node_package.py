"""The Node package, as packed and installed, in plain http and in Express 4 and 5."""

import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes.sidecar import (
    CHALLENGE,
    CONNECT_URL,
    SIGN_IN_AGAIN,
    Answer,
    FakeSidecar,
    always,
    refusal,
)
from tests.interop.environments import HERE, node_packages, node_site
from tests.interop.serving import plain_server

pytestmark = pytest.mark.timeout(400)

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
KINDS = ("http", "express4", "express5")


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def found(self) -> Any:
        assert self.status == 200, self.text
        return self.json["found"]


@dataclass(frozen=True)
class Site:
    url: str
    sidecar: FakeSidecar
    http: aiohttp.ClientSession

    async def call(
        self,
        tool: str = "token",
        *,
        method: str = "POST",
        path: str = "/mcp",
        authorization: list[str] | None = None,
        data: bytes = b"{}",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        given = [f"Bearer {JWT}"] if authorization is None else authorization
        sent = [
            ("X-Tool", tool),
            *(headers or {}).items(),
            *(("Authorization", it) for it in given),
        ]
        body = data if method == "POST" else None
        async with self.http.request(method, self.url + path, headers=sent, data=body) as answer:
            return Reply(answer.status, answer.headers, await answer.text())


@asynccontextmanager
async def site(kind: str = "http", **options: Any) -> AsyncIterator[Site]:
    async with (
        FakeSidecar().listening() as sidecar,
        plain_server(kind, json.dumps(options), sidecar.url) as url,
        aiohttp.ClientSession() as http,
    ):
        yield Site(url, sidecar, http)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_meets_the_sidecar_before_it_meets_the_server(kind: str) -> None:
    async with site(kind, upstream="github", serveMetadata=True) as here:
        assert (await here.call()).found == "token-github"
        (asked,) = here.sidecar.asked
        assert (asked.jwt, asked.body) == (f"Bearer {JWT}", {"upstream": "github"})
        names = {name.lower(): value for name, value in asked.headers}
        assert (names["x-tokenward"], names["content-type"]) == ("1", "application/json")
        assert not [n for n in names if n.startswith(("x-forwarded", "sec-fetch", "origin"))]

        # A batch: its bytes arrive as they are, and it is one question.
        batch = b'[{"id": 1}, {"id": 2}]' + b" " * 300_000
        found = (await here.call("body", data=batch)).found
        assert found == [batch.decode(), "token-github", "token-github"]
        assert len(here.sidecar.asked) == 2
        assert len({id(question.connection) for question in here.sidecar.asked}) == 1

        here.sidecar.then(SIGN_IN_AGAIN)
        refused = await here.call(data=batch)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, CHALLENGE)
        assert refused.json["connect_url"] == CONNECT_URL
        assert refused.headers["Cache-Control"] == "no-store"

        for path in (WELL_KNOWN, f"{WELL_KNOWN}/mcp?x=1"):
            document = await here.call(method="GET", path=path, authorization=[])
            assert (document.status, document.json) == (200, here.sidecar.document)
            assert document.headers["Access-Control-Allow-Origin"] == "*"
        preflight = await here.call(method="OPTIONS", path=WELL_KNOWN, authorization=[])
        assert (preflight.status, preflight.text) == (204, "")
        other = await here.call("nothing", method="GET", path=f"{WELL_KNOWN}/other")
        assert other.found == "no token was wanted"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_passes_event_by_event(kind: str) -> None:
    async with site(kind) as here:
        headers = {"X-Tool": "stream", "Authorization": f"bearer {JWT}"}
        async with here.http.post(f"{here.url}/mcp", headers=headers) as answer:
            assert await answer.content.readline() == b"data: token-only\n"
            await here.call("nothing", path="/resume", authorization=[])
            assert await answer.content.read() == b"\ndata: 2\n\n"


STEP_UP = 'Bearer error="insufficient_scope", scope="mcp github/repo", resource_metadata="x"'
MISSING = refusal(
    403,
    "insufficient_scope",
    action="reauthenticate",
    scope="mcp github/repo",
    **{"WWW-Authenticate": STEP_UP},
)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_missing_scope_is_the_clients_to_ask_for(kind: str) -> None:
    async with site(kind) as here:
        for tool in ("missing", "events"):
            here.sidecar.then(refusal(403, "attach_only"), MISSING)
            refused = await here.call(tool)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (403, STEP_UP)
            assert refused.json["scope"] == "mcp github/repo"
            assert "Mcp-Session-Id" not in refused.headers
            assert here.sidecar.asked[-1].body == {"missing_scope": "repo"}
            assert (await here.call()).found == "token-only", "given once"

        here.sidecar.then(refusal(403, "attach_only"), refusal(403, "insufficient_scope"))
        assert (await here.call("missing")).found == "InsufficientScope: undefined"

        here.sidecar.then(refusal(403, "attach_only"), MISSING)
        begun = await here.call("begun")
        assert (begun.status, begun.text) == (200, "begun InsufficientScope: mcp github/repo")
        assert (await here.call("nothing", method="GET")).status == 200
        asked = len(here.sidecar.asked)
        assert (await here.call()).status == 403
        assert len(here.sidecar.asked) == asked
        assert (await here.call()).status == 200


async def test_what_the_client_can_act_upon_is_relayed() -> None:
    async with site() as here:
        for status, error, header, value in (
            (403, "insufficient_scope", "WWW-Authenticate", 'Bearer error="insufficient_scope"'),
            (429, "rate_limited", "Retry-After", "7"),
            (503, "temporarily_unavailable", "Retry-After", "2"),
        ):
            here.sidecar.then(refusal(status, error, **{header: value}))
            refused = await here.call()
            assert (refused.status, refused.json["error"]) == (status, error)
            assert refused.headers[header] == value
        for status, error in ((400, "invalid_request"), (404, "unknown_upstream")):
            here.sidecar.then(refusal(status, error))
            assert (await here.call()).status == 500
        here.sidecar.then(refusal(401, "invalid_token"))
        assert (await here.call()).headers["WWW-Authenticate"] == "Bearer"
        here.sidecar.then(refusal(403, "attach_only"))
        assert (await here.call("nothing")).status == 200


async def test_an_answer_that_is_not_the_sidecars_is_an_outage_not_a_sign_in() -> None:
    async with site() as here:
        for broken in (
            lambda: web.Response(text="<html>", content_type="text/html"),
            lambda: web.Response(status=401, text="not ours"),
            lambda: web.json_response({"access_token": "two words"}),
            lambda: web.json_response(None),
            lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        ):
            here.sidecar.then(broken)
            refused = await here.call()
            assert (refused.status, refused.headers["Retry-After"]) == (503, "2")


async def test_a_sidecar_that_is_away_is_an_outage() -> None:
    async with site(url="http://127.0.0.1:1") as here:
        refused = await here.call()
        assert (refused.status, refused.json["action"]) == (503, "retry")


async def test_a_request_that_runs_no_tool_for_a_jwt_is_the_servers_own_business() -> None:
    async with site() as here:
        kinds: tuple[dict[str, Any], ...] = (
            {"authorization": []},
            {"authorization": ["Bearer sk-not-a-jwt"]},
            {"authorization": ["Basic YTpi"]},
            {"method": "GET"},
            {"method": "DELETE"},
            {"method": "OPTIONS"},
            {"path": WELL_KNOWN},
        )
        for kind in kinds:
            assert (await here.call("nothing", **kind)).status == 200
        assert here.sidecar.asked == []
        two = await here.call(authorization=[f"Bearer {JWT}", "Bearer a.b.c"])
        assert (two.status, here.sidecar.asked) == (400, [])


async def test_where_a_jwt_is_required_the_sidecar_judges_every_request() -> None:
    async with site(requireJwt=True) as here:
        denied = refusal(401, "invalid_token", **{"WWW-Authenticate": CHALLENGE})
        here.sidecar.always(always(denied))
        for method, authorization in (
            ("GET", []),
            ("GET", ["Bearer sk-not-a-jwt"]),
            ("GET", None),
            ("DELETE", None),
            ("POST", None),
        ):
            refused = await here.call("nothing", method=method, authorization=authorization)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, CHALLENGE)
        assert [asked.jwt is None for asked in here.sidecar.asked] == [True, True] + [False] * 3
        assert (await here.call("nothing", method="OPTIONS", authorization=[])).status == 200
        here.sidecar.always(None)
        assert (await here.call("nothing", authorization=[])).status == 503


async def test_what_a_tool_asks_for_reaches_the_sidecar() -> None:
    async with site(upstream="github") as here:
        found = (await here.call("several")).found
        assert found == ["token-slack", "token-slack", "token-renewed", "token-github"]
        assert [asked.body for asked in here.sidecar.asked] == [
            {"upstream": "github"},
            {"upstream": "slack"},
            {"upstream": "slack", "rejected_token": "token-slack"},
        ]


def _lives_for(expires_in: int) -> Answer:
    return always(lambda: web.json_response({"access_token": "t", "expires_in": expires_in}))


async def test_the_middlewares_answer_serves_the_tool_while_it_is_fresh() -> None:
    for expires_in, age, min_ttl, questions in (
        (3600, 4, 0, 1),
        (3600, 6, 0, 2),
        (3, 4, 0, 2),
        (30, 1, 60, 2),
    ):
        async with site() as here:
            here.sidecar.always(_lives_for(expires_in))
            headers = {"X-Age": str(age), "X-Min-Ttl": str(min_ttl)}
            assert (await here.call("later", headers=headers)).found == "t"
            assert len(here.sidecar.asked) == questions


async def test_a_token_that_the_api_refuses_is_replaced_once() -> None:
    async with site() as here:
        for accepted, status in (("token-only", 200), ("token-renewed", 200), ("none", 401)):
            found = (await here.call("retry", headers={"X-Accepted": accepted})).found
            assert found["status"] == status
        assert len(here.sidecar.asked) == 3 + 2


async def test_a_refusal_in_the_middle_of_a_tool_says_everything() -> None:
    async with site() as here:
        granted = always(lambda: web.json_response({"access_token": "t"}))

        async def first_then_refuse(asked: Any) -> web.StreamResponse:
            return await granted(asked) if not asked.body else SIGN_IN_AGAIN()

        here.sidecar.always(first_then_refuse)
        found = (await here.call("refusal")).found
    assert (found["name"], found["isSignIn"]) == ("SignInRequired", True)
    assert (found["error"], found["action"]) == ("reauthentication_required", "reauthenticate")
    assert (found["requestId"], found["connectUrl"]) == ("req-1", CONNECT_URL)
    assert found["challenges"] == [CHALLENGE]
    for text in ("words for reauthentication_required", "req-1", CONNECT_URL):
        assert text in found["message"]


async def test_code_that_lost_its_context_can_name_the_request() -> None:
    async with site() as here:
        assert (await here.call("no caller")).found == [True, "token-only"]


@pytest.mark.parametrize("url", ["", "http://sidecar.example:15500", "https://127.0.0.1:15500"])
def test_a_jwt_is_sent_to_loopback_and_nowhere_else(url: str) -> None:
    program = 'require("tokenward-mcp").tokenward({ url: process.argv[1] })'
    command = ["node", "-e", program, url]
    done = subprocess.run(command, cwd=node_site(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TypeError: TOKENWARD_URL" in done.stderr


def test_the_types_describe_the_package() -> None:
    site_folder = node_site()
    (site_folder / "typed.ts").write_text((HERE / "servers/typed.ts").read_text())
    tsc = node_packages() / "node_modules/.bin/tsc"
    options = ["--strict", "--noEmit", "--module", "nodenext", "--skipLibCheck", "--types", "node"]
    done = subprocess.run(
        [tsc, *options, "typed.ts"], cwd=site_folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_everything_public_can_be_imported_by_name_from_an_es_module() -> None:
    program = """
    import * as all from "tokenward-mcp";
    console.log(Object.keys(all).filter((name) => name !== "default").sort().join(" "));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program],
        cwd=node_site(),
        capture_output=True,
        text=True,
        check=True,
    )
    errors = "InsufficientScope NoCaller SignInRequired TemporarilyUnavailable TokenError"
    public = f"{errors} token tokenward withToken"
    assert sorted(done.stdout.split()) == sorted(public.split(" "))
