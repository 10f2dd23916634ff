"""Consent: the user sees who asks for what, and only this browser's answer to this page counts."""

import re
from pathlib import Path

from demo.forms import parse_forms
from tests.support.database_file import count
from tests.support.deployment import CALLBACK, NOTES, Pkce, deployed
from tests.support.sign_in_steps import (
    ExchangeRequest,
    ask,
    consent,
    cookie_of,
    finish,
    query_of,
    return_from_upstream,
)


async def test_the_page_tells_who_asks_for_what_and_where_the_answer_goes(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register(client_name="Notebook"))["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce()))
        for shown in ("Notebook", "127.0.0.1:9999", NOTES, "mcp-servers/notes", "acme", "openid"):
            assert shown in asked.page.text
        (form,) = parse_forms(asked.page.text)
        assert form.action == f"{world.issuer}/oauth/consent"
        assert form.method == "post"
        assert form.buttons == [("decision", "allow"), ("decision", "deny")]


async def test_a_hostile_client_name_is_only_a_text(tmp_path: Path) -> None:
    hostile = (
        '<script>alert(1)</script>"><svg onload=x>\u202egnp.exe\u200b\r\n\x00{{7*7}}' + "n" * 200
    )
    async with deployed(tmp_path) as world:
        registered = await world.register(client_name=hostile, logo_uri="https://evil.example/l")
        assert len(registered["client_name"]) <= 128
        asked = await ask(world, world.authorize_url(registered["client_id"], Pkce()))
        assert "<script" not in asked.page.text
        assert "<svg" not in asked.page.text
        assert not re.search("[\u202e\u200b\x00]", asked.page.text)
        assert "{{7*7}}" in asked.page.text
        assert "&lt;script&gt;" in asked.page.text


async def test_no_page_loads_anything_from_elsewhere_or_runs_a_script(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        registered = await world.register(logo_uri="https://evil.example/logo.png")
        asked = await ask(world, world.authorize_url(registered["client_id"], Pkce()))
        stopped = await world.call("GET", "/oauth/authorize")
        for page in (asked.page, stopped):
            loaded = re.findall(r'(?:src|href|action)="([^"]*)"', page.text)
            assert loaded
            assert all(url.startswith(f"{world.issuer}/") for url in loaded)
            assert "<script" not in page.text
            assert "evil.example" not in page.text
        assert (await world.call("GET", "/oauth/style.css")).status == 200


async def test_a_no_goes_back_to_the_client_and_nothing_goes_upstream(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce()))
        denied = await consent(world, asked, "deny")
        assert denied.status == 303
        assert denied.headers["Location"].startswith(f"{CALLBACK}?")
        told = query_of(denied.headers["Location"])
        assert told == {"error": "access_denied", "state": "client-state", "iss": world.issuer}
        assert await count(tmp_path, "transactions") == 0
        assert (await consent(world, asked)).status == 400


async def test_an_answer_that_is_not_this_browsers_to_this_page_is_refused_and_costs_nothing(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        victim = await ask(world, world.authorize_url(client_id, Pkce()))
        attacker = await ask(world, world.authorize_url(client_id, Pkce()))
        right = victim.answer()
        mine, theirs = {"Cookie": victim.cookie}, {"Cookie": attacker.cookie}
        forgeries: list[tuple[dict[str, str], dict[str, str], int]] = [
            (right, {}, 400),
            (right, theirs, 400),
            (right, {"Cookie": f"{victim.cookie}; {attacker.cookie}"}, 400),
            (right, {"Cookie": f"\u2000{victim.cookie}"}, 400),
            (right, {"Cookie": victim.cookie.upper()}, 400),
            (right, mine | {"Sec-Fetch-Site": "cross-site"}, 403),
            (right, mine | {"Sec-Fetch-Site": "same-site"}, 403),
            (right, mine | {"Sec-Fetch-Site": "none"}, 403),
            (attacker.answer(), mine, 400),
            ({"decision": "allow"}, mine, 400),
            ({"decision": "allow", "transaction": "x"}, mine, 400),
            ({"transaction": victim.transaction}, mine, 400),
            (right | {"decision": "ALLOW"}, mine, 400),
            (right | {"decision": "maybe"}, mine, 400),
        ]
        for fields, headers, status in forgeries:
            answer = await world.call("POST", "/oauth/consent", data=fields, headers=headers)
            assert (answer.status, answer.headers.get("Location")) == (status, None), headers
            assert answer.headers["Content-Type"].startswith("text/html")
        query = f"?decision=allow&transaction={victim.transaction}"
        for method in ("GET", "HEAD"):
            answer = await world.call(method, f"/oauth/consent{query}", headers=mine)
            assert answer.status == 405
        for asked in (victim, attacker):
            assert (await consent(world, asked)).status == 303


async def test_an_answer_from_our_own_page_is_taken(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce()))
        # Under Referrer-Policy: no-referrer a browser says `Origin: null`, even to ourselves.
        headers = {"Cookie": asked.cookie, "Origin": "null", "Sec-Fetch-Site": "same-origin"}
        answer = await world.call("POST", "/oauth/consent", data=asked.answer(), headers=headers)
        assert answer.status == 303


async def test_a_page_can_be_answered_once_and_for_ten_minutes(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce()))
        late = await ask(world, world.authorize_url(client_id, Pkce()))
        world.clock.advance(599)
        assert (await consent(world, asked)).status == 303
        assert (await consent(world, asked)).status == 400
        world.clock.advance(1)
        assert (await consent(world, late)).status == 400


async def test_a_consented_user_is_asked_again_for_the_next_client(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await world.signed_in("alice")
        other = (await world.register(client_name="Second"))["client_id"]
        asked = await ask(world, world.authorize_url(other, Pkce()))
        assert "Second" in asked.page.text
        assert "Location" not in asked.page.headers


async def test_an_unreachable_upstream_is_told_to_the_client_as_temporary(tmp_path: Path) -> None:
    nowhere = {
        "name": "acme",
        "type": "oidc",
        "issuer": "http://127.0.0.1:9",
        "clientId": "tokenward",
        "scopes": ["openid"],
    }
    async with deployed(tmp_path, upstreams=[nowhere]) as world:
        client_id = (await world.register())["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce()))
        told = query_of((await consent(world, asked)).headers["Location"])
        assert told.pop("error_description").startswith("the upstream that signs users in")
        assert told == {
            "error": "temporarily_unavailable",
            "state": "client-state",
            "iss": world.issuer,
        }
        assert await count(tmp_path, "transactions") == 0


async def test_an_https_issuer_binds_the_browser_with_a_cookie_no_neighbour_can_set(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path, issuer="https://auth.example.com") as world:
        client_id = (await world.register())["client_id"]
        local = world.authorize_url(client_id, Pkce())
        asked = await ask(world, local)
        name, _, rest = asked.page.headers["Set-Cookie"].partition("=")
        assert name == "__Host-tokenward"
        attributes = set(rest.split("; ")[1:])
        assert attributes == {"Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax", "Secure"}
        value = asked.cookie.partition("=")[2]
        for planted in (f"tokenward={value}", f"\u2000__Host-tokenward={value}"):
            forged = ExchangeRequest(asked.page, planted, asked.transaction)
            assert (await consent(world, forged)).status == 400
        assert (await consent(world, asked)).status == 303


async def test_the_cookie_says_nothing_about_the_sign_in_and_differs_per_browser(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        cookies = {cookie_of(await world.call("GET", url)) for _ in range(3)}
        assert len(cookies) == 3
        assert all(re.fullmatch(r"tokenward=[\w-]{43}", cookie) for cookie in cookies)


async def test_a_sign_in_works_through_all_its_redirects(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        answer = await finish(world, await return_from_upstream(world, url))
        assert answer.status == 303
        assert set(query_of(answer.headers["Location"])) == {"code", "state", "iss"}
