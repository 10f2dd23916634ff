"""The public listener as HTTP: headers on every answer, CORS, and requests bent out of shape."""

import base64
import re
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.support.database_file import count, sql
from tests.support.deployment import CALLBACK, Deployment, Pkce, deployed
from tests.support.sign_in_steps import ask, cookie_of, raw

METADATA = "/.well-known/oauth-authorization-server"
OPEN = {
    METADATA: "GET",
    "/.well-known/openid-configuration": "GET",
    "/.well-known/jwks.json": "GET",
    "/oauth/token": "POST",
    "/oauth/register": "POST",
    "/oauth/revoke": "POST",
}
FOR_PEOPLE = {
    "/oauth/authorize": "GET",
    "/oauth/consent": "POST",
    "/oauth/callback/acme": "GET",
}
ELSEWHERE = {"/oauth/style.css": "GET", "/nowhere": "GET", "/internal/token-exchange": "POST"}
REDEEM = {"grant_type": "authorization_code", "client_id": "tw-x", "code": "x"}


def form(text: bytes) -> dict[str, Any]:
    return {"data": text, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}


# Headers of every answer.


async def test_every_answer_carries_the_headers_that_protect_it(tmp_path: Path) -> None:
    async with deployed(tmp_path, issuer="https://auth.example.com") as world:
        client_id = (await world.register())["client_id"]
        url = world.authorize_url(client_id, Pkce())
        answers = [
            await world.call("GET", url),
            await world.call("GET", f"{url}&response_mode=fragment"),
            await world.call("POST", "/oauth/register", json={"redirect_uris": [CALLBACK]}),
            await world.call("POST", "/oauth/token", data=REDEEM),
        ]
        for path in {**OPEN, **FOR_PEOPLE, **ELSEWHERE}:
            for method in ("GET", "POST", "PUT", "OPTIONS"):
                answers.append(await world.call(method, path))
        await sql(tmp_path, "ALTER TABLE clients RENAME TO gone")
        answers.append(await world.call("GET", url))
        answers.append(await world.call("POST", "/oauth/token", data=REDEEM))
        assert {200, 201, 204, 303, 400, 401, 404, 405, 415, 503} == {a.status for a in answers}
        cached = "public, max-age=300"
        for answer in answers:
            headers = answer.headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Strict-Transport-Security"] == "max-age=31536000"
            assert len(headers["X-Request-Id"]) == 16
            may_be_cached = answer.status == 200 and "Set-Cookie" not in headers
            assert headers["Cache-Control"] == (cached if may_be_cached else "no-store")
            if headers.get("Content-Type", "").startswith("text/html"):
                policy = headers["Content-Security-Policy"]
                assert policy == (
                    "default-src 'none'; style-src 'self'; img-src 'self';"
                    " base-uri 'none'; frame-ancestors 'none'"
                )
                assert headers["X-Frame-Options"] == "DENY"


async def test_plain_http_on_loopback_does_not_claim_to_be_strict_transport(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        answer = await world.call("GET", METADATA)
        assert "Strict-Transport-Security" not in answer.headers


async def test_request_ids_differ_and_stand_on_the_error_page(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        answers = [await world.call("GET", "/oauth/authorize") for _ in range(3)]
        assert len({answer.headers["X-Request-Id"] for answer in answers}) == 3
        assert all(answer.headers["X-Request-Id"] in answer.text for answer in answers)


async def test_people_get_pages_and_programs_get_json(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        for path, method in FOR_PEOPLE.items():
            for answer in (
                await world.call(method, path, **(form(b"a=1&a=2") if method == "POST" else {})),
                await world.call(method, f"{path}?a=%"),
            ):
                assert 400 <= answer.status < 500
                assert answer.headers["Content-Type"] == "text/html; charset=utf-8", path
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/register"):
            answer = await world.call("POST", path, **form(b"a=1&a=2"))
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.json()["error"] == "invalid_request"


# CORS.


async def test_browser_applications_may_call_the_open_routes_and_see_their_errors(
    tmp_path: Path,
) -> None:
    preflight = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,mcp-protocol-version",
    }
    async with deployed(tmp_path) as world:
        for path, method in OPEN.items():
            asked = await world.call("OPTIONS", path, headers=preflight)
            assert asked.status == 204, path
            allowed = asked.headers["Access-Control-Allow-Headers"].lower().split(", ")
            assert {"authorization", "content-type", "accept", "mcp-protocol-version"} == set(
                allowed
            )
            assert method in asked.headers["Access-Control-Allow-Methods"].split(", ")
            failed = await world.call(method, path, headers={"Origin": "https://app.example"})
            for answer in (asked, failed):
                assert answer.headers["Access-Control-Allow-Origin"] == "*", path
                assert answer.headers["Access-Control-Expose-Headers"] == "WWW-Authenticate"
                assert "Access-Control-Allow-Credentials" not in answer.headers
        await sql(tmp_path, "ALTER TABLE clients RENAME TO gone")
        down = await world.call("POST", "/oauth/token", data=REDEEM)
        assert (down.status, down.headers["Access-Control-Allow-Origin"]) == (503, "*")


async def test_no_other_route_can_be_read_by_a_foreign_page(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        origin = {"Origin": "https://app.example"}
        preflight = origin | {"Access-Control-Request-Method": "POST"}
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        answers = [await world.call("GET", url, headers=origin)]
        for path, method in (FOR_PEOPLE | ELSEWHERE).items():
            asked = await world.call("OPTIONS", path, headers=preflight)
            assert asked.status in (404, 405), path
            answers += [asked, await world.call(method, path, headers=origin)]
        for answer in answers:
            assert not [name for name in answer.headers if name.lower().startswith("access-contr")]


async def test_the_internal_route_does_not_exist_here(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        answer = await world.call("POST", "/internal/token-exchange", data=REDEEM)
        assert (answer.status, answer.json()) == (404, {"error": "not_found"})


async def test_a_wrong_method_is_told_the_right_one(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        answer = await world.call("GET", "/oauth/token")
        assert (answer.status, answer.headers["Allow"]) == (405, "OPTIONS,POST")


# Bodies.


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/consent"])
async def test_a_form_is_taken_in_one_unambiguous_shape_only(tmp_path: Path, path: str) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce()))
        fields = asked.answer() | {"client_id": client_id, "token": "unknown"}
        right = aiohttp.FormData(fields)()
        assert isinstance(right, aiohttp.BytesPayload)
        body = right.decode().encode()
        cookie = {"Cookie": asked.cookie}
        multipart = aiohttp.FormData(fields, default_to_multipart=True)
        encoded = {"Content-Type": right.content_type, "Content-Encoding": "deflate"}
        refused: list[tuple[dict[str, Any], int]] = [
            ({"json": fields}, 415),
            ({"data": multipart}, 415),
            ({"data": body, "headers": {"Content-Type": "text/plain"}}, 415),
            ({"data": zlib.compress(body), "headers": encoded}, 415),
            ({"data": body, "headers": encoded | {"Content-Encoding": "identity"}}, 415),
            ({"data": fields, "params": {"client_id": client_id}}, 400),
            (form(body + b"&client_id=" + client_id.encode()), 400),
            (form(body + b"&x=1&x=1"), 400),
            (form(body + b"&x=%00"), 400),
            (form(body + b"&x=%ff"), 400),
            (form(body + b"&x=\xff"), 400),
            (form(body + b"&x=%"), 400),
            (form(body + b"".join(b"&f%d=" % n for n in range(100))), 400),
        ]
        for options, status in refused:
            options["headers"] = options.get("headers", {}) | cookie
            answer = await world.call("POST", path, **options)
            assert answer.status == status, (options, answer.text)
        answer = await world.call("POST", path, data=fields, headers=cookie)
        expected = {"/oauth/token": 400, "/oauth/revoke": 200, "/oauth/consent": 303}
        assert answer.status == expected[path]  # the token endpoint misses a grant_type only


async def test_a_body_larger_than_64_kib_is_refused_and_one_as_large_is_read(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/consent"):
            fits = await world.call("POST", path, **form(b"a=" + b"x" * (64 * 1024 - 2)))
            assert fits.status in (400, 401), path
            over = await world.call("POST", path, **form(b"a=" + b"x" * (64 * 1024 - 1)))
            assert over.status == 413, path
        document = b'{"redirect_uris": ["' + CALLBACK.encode() + b'"], "x": "%s"}'
        for size, status in ((65000, 201), (66000, 413)):
            answer = await world.call(
                "POST",
                "/oauth/register",
                data=document % (b"x" * (size - len(document))),
                headers={"Content-Type": "application/json"},
            )
            assert answer.status == status
        assert (await world.call("GET", METADATA)).status == 200


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b'{"redirect_uris": ["http://127.0.0.1/cb"]}', "application/json; charset=utf-8", 201),
        (b'{"redirect_uris": ["http://127.0.0.1/cb"]}', "text/plain", 415),
        (b'{"redirect_uris": ["http://127.0.0.1/cb"]}', "application/x-www-form-urlencoded", 415),
        (b'{"redirect_uris": ["http://127.0.0.1/cb"], "redirect_uris": []}', None, 400),
        (b'{"redirect_uris": ["http://127.0.0.1/cb"], "x": NaN}', None, 400),
        (b'["http://127.0.0.1/cb"]', None, 400),
        (b'{"a":' * 12000, None, 400),
        (b"", None, 400),
        (b"\xff\xfe", None, 400),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_registration_is_unambiguous_json(
    tmp_path: Path, body: bytes, media_type: str | None, status: int
) -> None:
    async with deployed(tmp_path) as world:
        headers = {"Content-Type": media_type or "application/json"}
        answer = await world.call("POST", "/oauth/register", data=body, headers=headers)
        assert answer.status == status
        if status != 201:
            assert answer.json()["error"] == "invalid_request"
            assert await count(tmp_path, "clients") == 0


async def test_two_authorization_headers_are_refused_even_if_both_are_right(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client = await world.register(token_endpoint_auth_method="client_secret_basic")
        pair = f"{client['client_id']}:{client['client_secret']}".encode()
        right = ("Authorization", f"Basic {base64.b64encode(pair).decode()}")
        fields = {"token": "x", "grant_type": "refresh_token", "refresh_token": "x"}
        for path, status, error in (
            ("/oauth/token", 400, "invalid_grant"),
            ("/oauth/revoke", 200, None),
        ):
            once = await world.call("POST", path, data=fields, headers=[right])
            assert once.status == status
            assert error is None or once.json()["error"] == error
            twice = await world.call("POST", path, data=fields, headers=[right, right])
            assert (twice.status, twice.json()["error"]) == (400, "invalid_request")


# Request heads.


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, *headers, "Connection: close", "", ""]).encode("latin-1")


async def test_urls_come_from_the_configuration_whatever_host_was_asked(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        expected = await world.call("GET", METADATA)
        forwarded = ("X-Forwarded-Host: evil", "X-Forwarded-Proto: gopher", "Forwarded: host=evil")
        host = f"Host: {urlsplit(world.issuer).netloc}"
        for request in (
            head(f"GET {METADATA} HTTP/1.1", "Host: evil.example"),
            head(f"GET {METADATA} HTTP/1.1", host, *forwarded, "X-Forwarded-Prefix: /evil"),
            head(f"GET http://evil.example{METADATA} HTTP/1.1", host),
            head(f"GET http://evil.example{METADATA} HTTP/1.1", "Host: evil.example"),
        ):
            status, answer = await raw(world, request)
            assert status == 200
            assert answer.endswith(expected.text.encode())
            assert b"evil" not in answer


async def test_pages_and_redirects_do_not_follow_the_host_either(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        target = url.removeprefix(world.issuer)
        for line, extra in (
            (f"GET {target} HTTP/1.1", ("X-Forwarded-Host: evil.example",)),
            (f"GET http://evil.example{target} HTTP/1.1", ()),
        ):
            status, page = await raw(world, head(line, "Host: evil.example", *extra))
            assert status == 200
            assert b"evil" not in page
        asked = await world.call("GET", url, headers={"Host": "evil.example"})
        headers = {"Cookie": cookie_of(asked), "Host": "evil.example"}
        again = await ask(world, url, headers["Cookie"])
        sent = await world.call("POST", "/oauth/consent", data=again.answer(), headers=headers)
        assert "evil" not in sent.headers["Location"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        head("GET {path} HTTP/1.1"),
        head("GET {path} HTTP/1.1", "Host: a", "Host: b"),
        head("GET {path} HTTP/1.1", "Host : a"),
        head("GET {path} HTTP/1.1", "Host: a", " folded: b"),
        head("GET {path} HTTP/2.0", "Host: a"),
        head("GET {path} HTTP/1.2", "Host: a"),
        head("GET {path}?a=\xff HTTP/1.1", "Host: a"),
        head("GET {path}?a=" + "a" * 8200 + " HTTP/1.1", "Host: a"),
        head("GET {path} HTTP/1.1", "Host: a", "X-A: " + "a" * 8200),
        head("GET {path} HTTP/1.1", "Host: a", *(f"X-{n}: 1" for n in range(150))),
        head("GET {path} HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 2"),
        head("POST /oauth/token HTTP/1.1", "Host: a", "Content-Length: 3",
             "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("POST /oauth/token HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked"),
    ],
    ids=lambda request: request[:60].decode("latin-1"),
)  # fmt: skip
async def test_a_head_that_proxies_read_differently_is_refused(
    tmp_path: Path, request_bytes: bytes
) -> None:
    async with deployed(tmp_path) as world:
        status, _ = await raw(world, request_bytes.replace(b"{path}", METADATA.encode()))
        assert status == 400
        assert (await world.call("GET", METADATA)).status == 200


async def test_hostile_parameters_come_back_nowhere(tmp_path: Path) -> None:
    hostile = "<svg onload=x>\r\nSet-Cookie: a=b\u202e"
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        for name in ("client_id", "redirect_uri", "resource", "scope", "state", "nonce", "error"):
            url = world.authorize_url(client_id, Pkce(), **{name: hostile})
            _check_not_reflected(await world.call("GET", url))
            _check_not_reflected(
                await world.call("GET", "/oauth/callback/acme", params={name: hostile})
            )
            _check_not_reflected(await world.call("POST", "/oauth/token", data={name: hostile}))
        _check_not_reflected(await world.call("GET", "/oauth/callback/<svg onload=x>"))
        _check_not_reflected(await world.call("GET", "/<svg onload=x>"))


def _check_not_reflected(answer: Any) -> None:
    assert "<svg" not in answer.text
    assert "\u202e" not in answer.text
    assert "a" not in [c.partition("=")[0] for c in answer.headers.getall("Set-Cookie", [])]
    assert "\n" not in answer.headers.get("Location", "")


async def test_an_unexpected_failure_tells_nobody_anything(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        await sql(tmp_path, "UPDATE clients SET metadata = 'secret {'")
        page = await world.call("GET", url)
        assert page.status == 500
        assert page.headers["Content-Type"].startswith("text/html")
        client_id = dict(part.split("=") for part in url.split("?")[1].split("&"))["client_id"]
        refused = await world.call("POST", "/oauth/token", data=REDEEM | {"client_id": client_id})
        assert (refused.status, refused.json()) == (500, {"error": "server_error"})
        for answer in (page, refused):
            assert "secret" not in answer.text
            assert "json" not in answer.text.lower()
            assert "Traceback" not in answer.text


async def test_metrics_stay_few_whatever_is_asked(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        before = _series(world)
        for n in range(50):
            await world.call("GET", f"/{n}")
            await world.call("GET", f"/oauth/callback/{n}?state={n}")
            await world.call("POST", "/oauth/token", data=REDEEM | {"client_id": f"tw-{n}"})
        assert _series(world) - before < 60


def _series(world: Deployment) -> int:
    return sum(len(metric.samples) for metric in world.server.registry.collect())


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"X-Request-Id": "client-call.7"}, "client-call.7"),
        ({"traceparent": f"00-{'4b' * 16}-{'01' * 8}-01"}, "4b" * 16),
        ({"X-Request-Id": "<script>alert(1)</script>"}, None),
        ({"X-Request-Id": "x" * 65}, None),
    ],
    ids=str,
)
async def test_a_client_may_name_its_request_within_bounds(
    tmp_path: Path, headers: dict[str, str], request_id: str | None
) -> None:
    async with deployed(tmp_path) as world:
        answer = await world.call("POST", "/oauth/token", data={}, headers=headers)
        found = answer.headers["X-Request-Id"]
        # `tokenward explain` gets it as an argument: none of ours begins with a hyphen.
        assert found == request_id if request_id else re.fullmatch("[0-9a-f]{16}", found)
