"""The upstream's callback: only the browser that was sent there, only once, only from there."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from demo.browser import Browser
from tests.support.database_file import count, sql
from tests.support.deployment import CALLBACK, Pkce, deployed, log_in, walk
from tests.support.sign_in_steps import ask, consent, finish, query_of, return_from_upstream
from tests.support.two_upstreams import configured, register_us, two_upstreams


async def test_only_the_browser_that_was_sent_upstream_can_come_back_from_there(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        url = world.authorize_url(client_id, Pkce())
        victim = await return_from_upstream(world, url, "alice")
        attacker = await return_from_upstream(world, url, "bob")
        stranger = await ask(world, url)
        for cookie in (
            None,
            attacker.cookie,
            stranger.cookie,
            "tokenward=x",
            f"{victim.cookie}; {attacker.cookie}",
            f"\xa0{victim.cookie}",
        ):
            headers = {"Cookie": cookie} if cookie else {}
            refused = await world.call("GET", victim.callback, headers=headers)
            assert (refused.status, refused.headers.get("Location")) == (400, None), cookie
        assert await count(tmp_path, "sessions") == 0
        # Neither of them used up the other's sign-in.
        for returning in (victim, attacker):
            told = query_of((await finish(world, returning)).headers["Location"])
            assert set(told) == {"code", "state", "iss"}


async def test_a_state_counts_as_a_whole_once_and_for_ten_minutes(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        returning = await return_from_upstream(world, url)
        late = await return_from_upstream(world, url)
        query = returning.query
        state = query.pop("state")
        for altered in (
            query,
            query | {"state": ""},
            query | {"state": state[:-1]},
            query | {"state": f"{state} "},
            query | {"state": state.swapcase()},
        ):
            callback = f"{world.issuer}/oauth/callback/acme?{urlencode(altered)}"
            refused = await finish(world, replace(returning, callback=callback))
            assert refused.status == 400
        for twice in (f"&state={state}", "&state=x", "&iss=x", "&code=x"):
            doubled = replace(returning, callback=returning.callback + twice)
            assert (await finish(world, doubled)).status == 400
        world.clock.advance(59)
        assert (await finish(world, returning)).status == 303
        assert (await finish(world, returning)).status == 400
        world.clock.advance(600 - 59)
        assert (await finish(world, late)).status == 400
        assert await count(tmp_path, "sessions") == 1


async def test_a_sign_in_nobody_consented_to_cannot_be_finished(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce()))
        query = urlencode({"state": asked.transaction, "code": "x", "iss": world.upstream.issuer})
        refused = await world.call(
            "GET", f"/oauth/callback/acme?{query}", headers={"Cookie": asked.cookie}
        )
        assert refused.status == 400
        assert (await consent(world, asked)).status == 303


async def test_a_state_cannot_answer_our_consent_page(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        returning = await return_from_upstream(world, url)
        asked = await ask(world, url, returning.cookie)
        confused = replace(asked, transaction=returning.query["state"])
        assert (await consent(world, confused)).status == 400
        assert (await finish(world, returning)).status == 303


@pytest.mark.parametrize("issuer", [None, "https://evil.example", "{}/", ""])
async def test_an_answer_with_another_issuer_than_the_upstreams_signs_nobody_in(
    tmp_path: Path, issuer: str | None
) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        returning = await return_from_upstream(world, url)
        query = returning.query | {"iss": (issuer or "").format(world.upstream.issuer)}
        if issuer is None:
            del query["iss"]
        callback = f"{world.issuer}/oauth/callback/acme?{urlencode(query)}"
        told = query_of(
            (await finish(world, replace(returning, callback=callback))).headers["Location"]
        )
        assert told.pop("error_description").startswith("the upstream refused")
        assert told == {"error": "server_error", "state": "client-state", "iss": world.issuer}
        assert await count(tmp_path, "sessions") == await count(tmp_path, "users") == 0


async def test_an_upstream_code_of_another_sign_in_signs_nobody_in(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        alice = await return_from_upstream(world, url, "alice")
        bob = await return_from_upstream(world, url, "bob")
        query = urlencode(alice.query | {"code": bob.query["code"]})
        injected = replace(alice, callback=f"{world.issuer}/oauth/callback/acme?{query}")
        told = query_of((await finish(world, injected)).headers["Location"])
        assert told["error"] == "server_error"
        assert await count(tmp_path, "sessions") == 0


@pytest.mark.parametrize(
    "said",
    [
        {"error": "access_denied", "error_description": "<svg onload=x> secret upstream words"},
        {"error": "server_error", "error_uri": "https://evil.example"},
        {"error": "\r\nSet-Cookie: a=b", "code": "x"},
        {},
    ],
    ids=str,
)
async def test_an_upstreams_words_reach_neither_the_user_nor_the_client(
    tmp_path: Path, said: dict[str, str]
) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        returning = await return_from_upstream(world, url)
        query = urlencode({"state": returning.query["state"], "iss": "https://evil.example"} | said)
        callback = f"{world.issuer}/oauth/callback/acme?{query}"
        answer = await finish(world, replace(returning, callback=callback))
        assert answer.text == ""
        assert answer.headers["Location"].startswith(f"{CALLBACK}?")
        told = query_of(answer.headers["Location"])
        description = told.pop("error_description")
        assert re.fullmatch(
            r"the (user declined|upstream refused) .* \(request [\w-]+\)", description
        )
        error = "access_denied" if said.get("error") == "access_denied" else "server_error"
        assert told == {"error": error, "state": "client-state", "iss": world.issuer}
        assert await count(tmp_path, "sessions") == 0


async def test_an_error_beside_a_good_code_is_still_an_error(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        returning = await return_from_upstream(world, url)
        both = replace(returning, callback=f"{returning.callback}&error=access_denied")
        told = query_of((await finish(world, both)).headers["Location"])
        assert told["error"] == "access_denied"
        assert await count(tmp_path, "sessions") == 0


async def test_storage_that_fails_signs_nobody_in_and_recovers_by_itself(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        returning = await return_from_upstream(world, url)
        await sql(tmp_path, "ALTER TABLE transactions RENAME TO gone")
        failed = await finish(world, returning)
        assert (failed.status, failed.headers.get("Location")) == (503, None)
        assert failed.headers["Content-Type"].startswith("text/html")
        await sql(tmp_path, "ALTER TABLE gone RENAME TO transactions")
        assert (await finish(world, returning)).status == 303


async def test_half_a_sign_in_is_never_stored(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        returning = await return_from_upstream(world, url)
        await sql(
            tmp_path,
            "CREATE TRIGGER full BEFORE INSERT ON codes BEGIN SELECT RAISE(ABORT, 'full'); END",
        )
        assert (await finish(world, returning)).status == 503
        for table in ("users", "connections", "sessions", "codes"):
            assert await count(tmp_path, table) == 0


async def test_an_answer_of_one_upstream_cannot_pass_for_anothers(tmp_path: Path) -> None:
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
    ):
        register_us(world, first, second)
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        returning = await return_from_upstream(world, url)
        assert urlsplit(returning.callback).path == "/oauth/callback/first"
        for other in ("second", "third", "FIRST", "%66irst%2f", "first/"):
            mixed = returning.callback.replace("/callback/first", f"/callback/{other}")
            refused = await finish(world, replace(returning, callback=mixed))
            assert refused.status in (400, 404), other
        onward = await finish(world, returning)
        assert onward.headers["Location"].startswith(f"{second.issuer}/authorize?")


async def test_every_upstream_of_a_resource_is_linked_in_one_sign_in(tmp_path: Path) -> None:
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
    ):
        register_us(world, first, second)
        client_id, pkce = (await world.register())["client_id"], Pkce()
        async with Browser(leave_at=CALLBACK) as browser:
            consented = await browser.submit(
                await browser.open(world.authorize_url(client_id, pkce)),
                press=("decision", "allow"),
            )
            page = await log_in(browser, await log_in(browser, consented, "alice"), "bob")
        tokens = (await world.redeem(client_id, page.query["code"], pkce)).json()
        for upstream in ("first", "second"):
            answer = await world.exchange(
                "mcp-servers/notes", tokens["access_token"], audience=upstream
            )
            assert answer.json()["upstream"] == upstream


async def test_a_linked_upstream_that_fails_costs_only_itself(tmp_path: Path) -> None:
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
    ):
        register_us(world, first, second)
        client_id, pkce = (await world.register())["client_id"], Pkce()
        returning = await return_from_upstream(world, world.authorize_url(client_id, pkce))
        onward = (await finish(world, returning)).headers["Location"]
        query = urlencode({"state": query_of(onward)["state"], "error": "access_denied"})
        callback = f"{world.issuer}/oauth/callback/second?{query}"
        told = query_of(
            (await finish(world, replace(returning, callback=callback))).headers["Location"]
        )
        tokens = (await world.redeem(client_id, told["code"], pkce)).json()
        answer = await world.exchange("mcp-servers/notes", tokens["access_token"], audience="first")
        assert answer.json()["upstream"] == "first"


async def test_users_are_told_apart_by_issuer_and_subject_only(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        subjects = set()
        for user in ("alice", "bob", "alice"):
            signed_in = await world.signed_in(user)
            assert user not in signed_in.access_token
            subjects.add(_sub(signed_in.access_token))
        assert len(subjects) == 2
        assert await count(tmp_path, "users") == 2
        assert all(re.fullmatch(r"[\w-]{43}", subject) for subject in subjects)
        assert not subjects & {"user-1001", "user-1002"}


async def test_a_browser_signs_in_through_the_pages(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        async with Browser(leave_at=CALLBACK) as browser:
            answer = await walk(browser, world.authorize_url(client_id, Pkce()), "alice")
        assert set(answer) == {"code", "state", "iss"}
        # 303 after every form, so that no browser posts it again to where it is sent.
        assert {hop.status for hop in browser.hops} == {200, 303}


def _sub(jwt: str) -> str:
    payload = jwt.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return str(claims["sub"])
