"""A tool behind the gateway lacks a scope: its MCP client gets a challenge that it can follow."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from demo.pki import CertificateAuthority
from sidecar.timeouts import DEFAULT
from tests.fakes.authserver import Received, release
from tests.sidecar.attach.harness import TOKEN, Attached, Called, FakeApi
from tests.sidecar.gateway.app import RawApp, Seen, Writer, response
from tests.sidecar.gateway.harness import RESOURCE_METADATA, Gated, gated
from tests.sidecar.harness import JWT, OTHER_JWT, Authorities, Reply

SCOPE = "mcp github/repo"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FOREIGN = 'WWW-Authenticate: Bearer realm="api", error="insufficient_scope", scope="repo"'


async def asking(received: Received) -> web.StreamResponse:
    """An authserver whose users can be asked for the scope `repo`."""
    match received.form.get("missing_scope"):
        case None if "subject_token" not in received.form:
            return web.Response(status=404)  # the revocation feed
        case None:
            return release()
        case "repo":
            return web.json_response({"error": "insufficient_scope", "scope": SCOPE}, status=403)
        case "granted":
            return release()
        case "declined":
            return web.json_response({"error": "insufficient_scope"}, status=403)
        case _:
            members = {"error": "invalid_request", "parameter": "missing_scope"}
            return web.json_response(members, status=400)


@pytest.fixture
async def s(tmp_path: Path, authorities: Authorities) -> AsyncIterator[Gated]:
    timeouts = DEFAULT._replace(first_event=0.2)
    async with gated(tmp_path, authorities, timeouts=timeouts) as gate:
        gate.authserver.always(asking)
        yield gate


def asked(s: Gated) -> list[str]:
    forms = [received.form for received in s.authserver.received]
    return [form["missing_scope"] for form in forms if "missing_scope" in form]


def check_challenge(reply: Reply) -> None:
    """What a client needs in order to step up (MCP, "Runtime insufficient scope errors")."""
    assert reply.status == 403
    challenge = reply.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="insufficient_scope", ')
    assert RESOURCE_METADATA in challenge
    assert f'scope="{SCOPE}"' in challenge
    assert reply.json["error"] == "insufficient_scope"


async def ask_sidecar(s: Gated, missing: str, jwt: str = JWT) -> int:
    """The app calls `POST /v1/token` for a client."""
    url = f"http://127.0.0.1:{s.inner.port}/v1/token"
    headers = {"Authorization": f"Bearer {jwt}", "X-Tokenward": "1"}
    async with s.http.post(url, headers=headers, json={"missing_scope": missing}) as answer:
        return answer.status


def tool(s: Gated, answer: bytes, missing: str = "repo") -> Any:
    """A tool that meets a missing scope and then answers in its own words."""

    async def handle(seen: Seen, writer: Writer) -> bool:
        assert await ask_sidecar(s, missing) in (200, 400, 403)
        writer.write(answer)
        await writer.drain()
        return False

    return handle


def events(*pieces: bytes) -> bytes:
    return EVENTS + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


RESULT = b'data: {"result": {"isError": true}}\n\n'


@pytest.mark.parametrize(
    "answer",
    [
        response(200, b'{"result": {"isError": true}}'),
        response(500, b"oh"),
        events(RESULT),
        events(b": ping\n\n", b"id: 7\ndata: \n\n", RESULT),
        events(),
    ],
    ids=["json", "error", "events", "priming", "nothing"],
)
async def test_the_client_is_challenged_in_place_of_the_tools_words(
    s: Gated, answer: bytes
) -> None:
    s.app.then.append(tool(s, answer))
    check_challenge(await s.call())
    assert s.metric("insufficient_scope") == 1
    reply = await s.call()  # given once: nobody is locked out who does not step up
    assert (reply.status, reply.raw) == (200, b"ok")


async def test_a_call_through_attach_is_challenged_too(
    tmp_path: Path, authorities: Authorities
) -> None:
    """The server knows nothing of OAuth: the API's 403 comes to its client as a challenge."""
    (tmp_path / "api").mkdir()
    async with (
        FakeApi(CertificateAuthority.create("apis")).listening(tmp_path / "api") as api,
        gated(tmp_path, authorities) as s,
    ):
        attached = Attached(s.inner, api)
        rule = {"askable": ["repo"], "any_of": False}

        async def answer(received: Received) -> web.StreamResponse:
            if "missing_scope" in received.form or "subject_token" not in received.form:
                return await asking(received)
            apis = [attached.describe(missing_scope=rule)]
            return release(access_token=TOKEN, apis=apis, release=["Attach"])

        async def refusing(_: web.BaseRequest, __: Called) -> web.StreamResponse:
            challenge = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="repo"'}
            return web.json_response({}, status=403, headers=challenge)

        async def handle(seen: Seen, writer: Writer) -> bool:
            assert (await attached.call()).error == "insufficient_scope"
            writer.write(response(200, b'{"result": {"isError": true}}'))
            await writer.drain()
            return False

        s.authserver.always(answer)
        api.handle = refusing
        s.app.then.append(handle)
        check_challenge(await s.call())


async def test_where_the_answer_is_on_its_way_the_next_call_is_challenged(s: Gated) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(seen: Seen, writer: Writer) -> bool:
        progress = b'data: {"method": "notifications/progress"}\n\n'
        writer.write(EVENTS + b"%x\r\n%b\r\n" % (len(progress), progress))
        begun.set()
        await go_on.wait()
        assert await ask_sidecar(s, "repo") == 403
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(RESULT), RESULT))
        await writer.drain()
        return False

    s.app.then.append(handle)
    async with s.http.post(s.url("/mcp"), headers={"Authorization": f"Bearer {JWT}"}) as under_way:
        await begun.wait()
        go_on.set()
        assert RESULT in await under_way.read()
    for method in ("GET", "DELETE"):  # clients step up for a call
        assert (await s.call(method=method)).status == 200
    assert (await s.call(jwt=OTHER_JWT)).status == 200
    forwarded = len(s.app.requests)
    check_challenge(await s.call())
    assert len(s.app.requests) == forwarded
    assert (await s.call()).status == 200


async def test_a_challenge_is_forgotten_after_a_minute(s: Gated) -> None:
    assert await ask_sidecar(s, "repo") == 403
    s.inner.clock.now += 61
    await s.inner.sidecar.tick()
    assert (await s.call()).status == 200


async def test_a_stream_that_says_nothing_yet_gets_its_head_after_a_while(s: Gated) -> None:
    go_on = asyncio.Event()

    async def handle(seen: Seen, writer: Writer) -> bool:
        writer.write(EVENTS)
        await go_on.wait()
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(RESULT), RESULT))
        await writer.drain()
        return False

    s.app.then.append(handle)
    async with s.http.post(s.url("/mcp"), headers={"Authorization": f"Bearer {JWT}"}) as answer:
        assert answer.status == 200  # here: before the first event
        go_on.set()
        assert await answer.read() == RESULT


@pytest.mark.parametrize("missing", ["declined", "granted", "unknown"])
async def test_what_cannot_be_asked_for_leaves_the_tool_its_words(s: Gated, missing: str) -> None:
    s.app.then.append(tool(s, response(200, b"in my own words"), missing))
    reply = await s.call()
    assert (reply.status, reply.raw) == (200, b"in my own words")
    assert (await s.call()).status == 200


# A server that passes the API's 403 on.


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_the_apis_challenge_becomes_one_that_the_client_can_follow(
    s: Gated, method: str
) -> None:
    s.app.then.append(response(403, b"no", FOREIGN))
    check_challenge(await s.call(method=method))
    assert asked(s) == ["repo"]
    assert (await s.call()).status == 200


async def test_after_a_no_there_is_no_challenge(s: Gated) -> None:
    s.app.then.append(response(403, b"no", FOREIGN.replace("repo", "declined")))
    reply = await s.call()
    assert (reply.status, reply.json["action"]) == (403, "none")
    assert "WWW-Authenticate" not in reply.headers


@pytest.mark.parametrize("scope", ["granted", "admin:org", "granted admin:org"])
async def test_a_challenge_that_no_client_could_follow_is_left_out(s: Gated, scope: str) -> None:
    """It would ask our authserver for scopes that mean nothing there, and loop."""
    s.app.then.append(response(403, b"no", FOREIGN.replace("repo", scope)))
    reply = await s.call()
    assert (reply.status, reply.raw) == (403, b"no")
    assert "WWW-Authenticate" not in reply.headers
    assert asked(s) == [scope]


@pytest.mark.parametrize(
    ("status", "challenge"),
    [
        (403, 'Bearer error="insufficient_scope", scope="mcp"'),
        (403, f'Bearer error="insufficient_scope", {RESOURCE_METADATA}, scope="mcp github/repo"'),
        (403, 'Bearer error="insufficient_scope"'),
        (403, 'Bearer error="invalid_token", scope="repo"'),
        (401, 'Bearer error="insufficient_scope", scope="repo"'),
    ],
)
async def test_the_apps_own_challenges_stay_as_they_are(
    s: Gated, status: int, challenge: str
) -> None:
    s.app.then.append(response(status, b"no", f"WWW-Authenticate: {challenge}"))
    reply = await s.call()
    assert (reply.status, reply.raw) == (status, b"no")
    assert reply.headers["WWW-Authenticate"] == challenge
    assert asked(s) == []


async def test_of_several_ways_the_one_that_the_operator_lists_is_asked_for(
    tmp_path: Path, authorities: Authorities
) -> None:
    rule = {"askable": ["granted", "repo"], "any_of": True}
    api = {
        "name": "rest", "base_url": "https://api.example.com", "methods": ["GET"],
        "path_prefixes": ["/"], "default": True, "credential_headers": [],
        "credential_parameters": [], "link_members": [], "search_answers": True,
        "missing_scope": rule,
    }  # fmt: skip

    async def answer(received: Received) -> web.StreamResponse:
        if "missing_scope" in received.form or "subject_token" not in received.form:
            return await asking(received)
        return release(access_token="canary-t", apis=[api], scope="granted")

    mode = {"GATEWAY_TOKEN": "upstream"}
    async with gated(tmp_path, authorities, mode, app=RawApp()) as s:
        s.authserver.always(answer)
        s.app.then.append(response(403, b"no", FOREIGN.replace("repo", "admin granted repo")))
        check_challenge(await s.call())
        assert asked(s) == ["repo"]


async def test_a_broken_off_stream_is_no_half_answer(s: Gated) -> None:
    async def handle(seen: Seen, writer: Writer) -> bool:
        writer.write(EVENTS + b"5\r\n: pi")
        await writer.drain()
        return False

    s.app.then.append(handle)
    reply = await s.call()
    assert (reply.status, json.loads(reply.raw)["error"]) == (502, "bad_gateway")
