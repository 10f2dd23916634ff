"""Links by which a user connects an upstream account to a session that a client already has."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from yarl import URL

from demo.browser import Browser, Page
from demo.forms import parse_forms
from tests.support.connecting import (
    Person,
    Scene,
    connected,
    person,
    press,
    scene,
    signed_in,
    to_confirmation,
)
from tests.support.database_file import count, dump, sql
from tests.support.deployment import CALLBACK, NOTES, Answer, Pkce, deployed, log_in
from tests.support.workloads import DENIED, NOTES_SERVER, TASKS_SERVER, replica, verdict

LIST = ["first", {"name": "second", "connect": "WhenNeeded"}]


def cookies_of(browser: Browser, url: str) -> str:
    sent = browser.cookies.sent_to(URL(url))
    return "; ".join(f"{one.name}={one.value}" for one in sent)


def notes(**changes: Any) -> list[dict[str, Any]]:
    workload = {"namespace": "mcp-servers", "name": "notes"}
    entry = {"resource": NOTES, "workload": workload, "upstreams": LIST, "scopes": ["mcp"]}
    return [entry | changes]


async def post(s: Scene, path: str, data: Mapping[str, str], cookie: str, **headers: str) -> Answer:
    sent = {"Cookie": cookie} | {name.replace("_", "-"): value for name, value in headers.items()}
    url = path if path.startswith("http") else f"{s.world.issuer}{path}"
    return await s.world.call("POST", url, data=data, headers=sent)


def hidden(page: Page | Answer) -> dict[str, str]:
    (form,) = parse_forms(page.text)
    return dict(form.fields)


def is_over(page: Page | Answer) -> bool:
    return page.status == 400 and "This link is not complete" in page.text


# The way that works.


async def test_a_sign_in_asks_for_no_upstream_that_is_connected_when_needed(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        assert not any(hop.url.startswith(s.second.issuer) for hop in alice.browser.hops)
        assert s.whose(await s.exchange(alice.jwt, "first"), s.first) == "alice"
        url = s.world.authorize_url(alice.client_id, Pkce())
        text = (await alice.browser.open(url)).text
        assert "This server may later ask you to connect your second account, to:" in text
        assert "This server will be able to use your first account to:" in text
        assert "will be able to use your second account" not in text


async def test_after_the_link_the_same_jwt_works_and_no_client_signs_in_again(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s, person(s, client_name="Notes Assistant") as alice:
        url = await s.link(alice.jwt)
        page = await alice.browser.open(url)
        assert page.status == 200
        for text in (NOTES, "second", "Notes Assistant", "alice"):
            assert text in page.text
        confirmation = await to_confirmation(s, alice.browser, url, "bob")
        for text in (NOTES, "second", "Notes Assistant", "bob", "Not you? Start over"):
            assert text in confirmation.text
        assert (await s.exchange(alice.jwt)).status == 400, "nothing is attached before the yes"
        done = await press(alice.browser, confirmation, "confirm")
        assert "is connected" in done.text
        assert s.whose(await s.exchange(alice.jwt)) == "bob"
        assert (await s.world.refresh(alice.client_id, alice.refresh_token)).status == 200


async def test_the_absence_of_such_an_upstream_refuses_no_refresh(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        await s.link(alice.jwt)
        assert (await s.world.refresh(alice.client_id, alice.refresh_token)).status == 200


async def test_a_stranger_signs_in_as_the_meant_user_and_goes_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, Browser() as elsewhere:
        url = await s.link(alice.jwt)
        page = await press(elsewhere, await elsewhere.open(url), "sign_in")
        assert page.url.startswith(s.first.issuer)
        page = await log_in(elsewhere, page, "alice")
        assert page.url == url, "back at the link, signed in"
        page = await log_in(elsewhere, await press(elsewhere, page, "connect"), "alice")
        assert "is connected" in (await press(elsewhere, page, "confirm")).text
        assert s.whose(await s.exchange(alice.jwt)) == "alice"
        assert s.whose(await s.exchange(alice.jwt, "first"), s.first) == "alice"


@pytest.mark.parametrize("fresh_browser", [False, True])
async def test_a_dead_identifying_upstream_is_mended_by_the_same_page(
    tmp_path: Path, fresh_browser: bool
) -> None:
    async with scene(tmp_path) as s, person(s) as alice, Browser() as elsewhere:
        await sql(tmp_path, "UPDATE connections SET dead = 1, rejected = 1")
        url = await s.link(alice.jwt, "first")
        refused = await s.world.refresh(alice.client_id, alice.refresh_token)
        assert refused.json()["error"] == "invalid_grant"
        browser = elsewhere if fresh_browser else alice.browser
        decision = "sign_in" if fresh_browser else "connect"
        page = await press(browser, await browser.open(url), decision)
        page = await log_in(browser, page, "alice")
        assert "alice" in page.text
        assert "is connected" in (await press(browser, page, "confirm")).text
        assert s.whose(await s.exchange(alice.jwt, "first"), s.first) == "alice"
        assert (await s.world.refresh(alice.client_id, alice.refresh_token)).status == 200


async def test_whoever_chose_the_wrong_account_starts_over_with_another(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        page = await to_confirmation(s, alice.browser, url, "bob")
        page = await press(alice.browser, page, "start_over")
        assert page.url.startswith(s.second.issuer)
        assert page.query.get("prompt") == "select_account"
        page = await log_in(alice.browser, page, "alice")
        assert "is connected" in (await press(alice.browser, page, "confirm")).text
        assert s.whose(await s.exchange(alice.jwt)) == "alice"


# The link.


async def test_a_link_is_the_same_for_five_minutes_and_valid_for_ten(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        for seconds in (0, 1, 298):
            s.world.clock.advance(seconds)
            assert await s.link(alice.jwt) == url
        s.world.clock.advance(2)
        later = await s.link(alice.jwt)
        assert later != url
        s.world.clock.advance(298)
        assert (await alice.browser.open(url)).status == 200
        s.world.clock.advance(1)
        assert is_over(await alice.browser.open(url))
        assert (await alice.browser.open(later)).status == 200


async def test_links_of_sessions_and_upstreams_differ(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        other = await signed_in(s, alice.browser, "alice")
        assert await s.link(alice.jwt) != await s.link(other.jwt)


async def test_giving_and_opening_a_link_stores_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        before = await dump(tmp_path)
        url = await s.link(alice.jwt)
        async with Browser() as stranger:
            for browser in (alice.browser, bob.browser, stranger):
                assert (await browser.open(url)).status == 200
        assert (await s.world.call("HEAD", url)).status == 200
        assert await dump(tmp_path) == before


async def test_a_confirmed_link_is_used_up_and_the_next_refusal_gives_another(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        await connected(s, alice.browser, url)
        assert is_over(await alice.browser.open(url))
        await sql(tmp_path, "DELETE FROM connections WHERE upstream = 'second'")
        again = await s.link(alice.jwt)
        assert again != url
        assert "is connected" in (await connected(s, alice.browser, again)).text


async def test_of_two_tabs_that_confirm_one_link_one_attaches(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        pages = [await to_confirmation(s, alice.browser, url, user) for user in ("alice", "bob")]
        cookie = cookies_of(alice.browser, s.world.issuer)
        answers = await asyncio.gather(
            *(
                post(s, "/connect/confirm", hidden(page) | {"decision": "confirm"}, cookie)
                for page in pages
            )
        )
        assert sorted(answer.status for answer in answers) == [200, 400]
        assert await count(tmp_path, "used_connect_links") == 1


@pytest.mark.parametrize("decision", ["cancel", "declined"])
async def test_a_link_that_attached_nothing_can_be_opened_again(
    tmp_path: Path, decision: str
) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        if decision == "cancel":
            page = await to_confirmation(s, alice.browser, url)
            page = await press(alice.browser, page, "cancel")
            assert "Nothing was connected" in page.text
        else:
            page = await press(alice.browser, await alice.browser.open(url), "connect")
            state = page.query["state"]
            callback = f"{s.world.issuer}/oauth/callback/second?error=access_denied&state={state}"
            assert "You declined" in (await alice.browser.open(callback)).text
        assert (await s.exchange(alice.jwt)).status == 400
        assert await s.link(alice.jwt) == url
        assert "is connected" in (await connected(s, alice.browser, url)).text


async def test_only_a_whole_link_of_this_server_opens(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        text = url.rpartition("/")[2]
        middle = len(text) // 2
        altered = "A" if text[middle] != "A" else "B"
        for bad in (
            text[:-1],
            f"{text}=",
            f"{text}A",
            text.swapcase(),
            f"{text[:middle]}{altered}{text[middle + 1 :]}",
            "x",
            "A" * 3000,
            "%00",
            "confirm",
        ):
            page = await s.world.call("GET", f"/connect/{bad}")
            assert is_over(page) or page.status in (404, 405), bad
        assert (await alice.browser.open(url)).status == 200


async def test_a_link_of_another_key_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with scene(tmp_path / "a") as s, person(s) as alice, scene(tmp_path / "b") as other:
        text = (await s.link(alice.jwt)).rpartition("/")[2]
        assert is_over(await other.world.call("GET", f"/connect/{text}"))


async def test_a_link_of_one_replica_opens_at_another(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, replica(s.world) as another:
        answer = await another.exchange(NOTES_SERVER, alice.jwt, audience="second")
        assert (
            "is connected" in (await connected(s, alice.browser, answer.json()["connect_url"])).text
        )


@pytest.mark.parametrize("change", ["session", "user", "owner", "upstream", "resource"])
async def test_a_link_is_over_with_what_it_was_about(tmp_path: Path, change: str) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        page = await to_confirmation(s, alice.browser, url)
        match change:
            case "session":
                fields = {"token": alice.refresh_token, "client_id": alice.client_id}
                await s.world.call("POST", "/oauth/revoke", data=fields)
            case "user":
                await sql(tmp_path, "UPDATE users SET blocked_at = 1")
            case "owner":
                moved = {"namespace": "mcp-servers", "name": "tasks"}
                await s.world.reconfigure(resources=notes(workload=moved))
            case "upstream":
                await s.world.reconfigure(resources=notes(upstreams=["first"]))
            case _:
                await s.world.reconfigure(resources=[])
        assert is_over(await alice.browser.open(url))
        assert is_over(await press(alice.browser, page, "confirm"))
        assert await count(tmp_path, "used_connect_links") == 0
        stored = await sql(tmp_path, "SELECT upstream FROM connections")
        assert "second" not in [row[0] for row in stored]


async def test_a_blocked_user_gets_no_link_and_no_link_of_theirs_opens(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, Browser() as elsewhere:
        url = await s.link(alice.jwt)
        confirmation = await to_confirmation(s, alice.browser, url)
        stranger = await press(elsewhere, await elsewhere.open(url), "sign_in")
        await sql(tmp_path, "UPDATE users SET blocked_at = 1")
        assert "connect_url" not in (await s.exchange(alice.jwt)).text
        assert is_over(await alice.browser.open(url))
        assert is_over(await press(alice.browser, confirmation, "confirm"))
        assert is_over(await log_in(elsewhere, stranger, "alice"))
        assert await count(tmp_path, "used_connect_links") == 0


async def test_only_the_owner_of_a_session_gets_its_link(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        stranger = await s.world.exchange(TASKS_SERVER, alice.jwt, audience="second")
        assert verdict(stranger) == DENIED
        unknown = await s.exchange(alice.jwt, "third")
        assert "connect_url" not in unknown.text


async def test_an_upstream_that_is_not_configured_has_no_link(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        configuration = yaml.safe_load((tmp_path / "authserver.yaml").read_text())
        first = configuration["upstreams"][0]
        await s.world.reconfigure(upstreams=[first], resources=notes(upstreams=["first"]))
        answer = await s.exchange(alice.jwt)
        assert "connect_url" not in answer.text


# Who.


async def test_a_stranger_learns_nothing_but_that_there_is_something_to_sign_in_to(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s, person(s, client_name="Notes Assistant") as alice:
        page = await s.world.call("GET", await s.link(alice.jwt))
        assert "Sign in to go on" in page.text
        for secret in (NOTES, "notes", "second", "first", "Notes Assistant", "alice", "mcp"):
            assert secret not in page.text.replace(s.world.issuer, "")
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert page.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


async def test_another_user_learns_only_that_the_link_is_not_theirs(tmp_path: Path) -> None:
    async with (
        scene(tmp_path) as s,
        person(s, client_name="Notes Assistant") as alice,
        person(s, "bob") as bob,
    ):
        page = await bob.browser.open(await s.link(alice.jwt))
        assert "This link is not yours" in page.text
        for secret in (NOTES, "second", "Notes Assistant", "alice"):
            assert secret not in page.text.replace(s.world.issuer, "")


async def test_a_forwarded_link_attaches_nobodys_account_to_somebody_else(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        url = await s.link(alice.jwt)
        sessions = await count(tmp_path, "browser_sessions")
        page = await press(bob.browser, await bob.browser.open(url), "sign_in_other")
        page = await log_in(bob.browser, page, "bob")
        assert (page.status, "made for another person" in page.text) == (403, True)
        assert await count(tmp_path, "browser_sessions") == sessions
        async with Browser() as stranger:
            page = await press(stranger, await stranger.open(url), "sign_in")
            page = await log_in(stranger, page, "bob")
            assert (page.status, "made for another person" in page.text) == (403, True)
            assert "Sign in to go on" in (await stranger.open(url)).text
        for jwt in (alice.jwt, bob.jwt):
            assert (await s.exchange(jwt)).status == 400
        assert await count(tmp_path, "connections") == 2


async def test_a_step_forged_with_another_users_session_goes_no_further(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        url = await s.link(alice.jwt)
        text = url.rpartition("/")[2]
        cookie = cookies_of(bob.browser, s.world.issuer)
        session = next(
            one.value
            for one in bob.browser.cookies.sent_to(URL(s.world.issuer))
            if one.name == "tokenward-session"
        )
        token = hashlib.sha256(f"connect {session} {text}".encode()).hexdigest()
        answer = await post(s, url, {"token": token, "decision": "connect"}, cookie)
        assert (answer.status, "made for another person" in answer.text) == (403, True)


@pytest.mark.parametrize("wrong", ["user", "browser", "nobody"])
async def test_the_answer_that_attaches_comes_from_the_links_user_at_the_same_browser(
    tmp_path: Path, wrong: str
) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        url = await s.link(alice.jwt)
        page = await to_confirmation(s, alice.browser, url, "bob")
        fields = hidden(page) | {"decision": "confirm"}
        mine = {one.name: one.value for one in alice.browser.cookies.sent_to(URL(s.world.issuer))}
        his = {one.name: one.value for one in bob.browser.cookies.sent_to(URL(s.world.issuer))}
        sent = {
            "user": mine | {"tokenward-session": his["tokenward-session"]},
            "browser": mine | {"tokenward": his["tokenward"]},
            "nobody": {"tokenward": mine["tokenward"]},
        }[wrong]
        cookie = "; ".join(f"{name}={value}" for name, value in sent.items())
        answer = await post(s, "/connect/confirm", fields, cookie)
        assert answer.status == (400 if wrong == "browser" else 403)
        assert (await s.exchange(alice.jwt)).status == 400
        assert await count(tmp_path, "used_connect_links") == 0


async def test_an_upstreams_answer_counts_at_the_browser_that_was_sent_there(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        url = await s.link(alice.jwt)
        page = await press(alice.browser, await alice.browser.open(url), "connect")
        state = page.query["state"]
        callback = f"{s.world.issuer}/oauth/callback/second?code=x&state={state}"
        for cookie in (None, cookies_of(bob.browser, s.world.issuer)):
            headers = {"Cookie": cookie} if cookie else {}
            assert (await s.world.call("GET", callback, headers=headers)).status == 400
        # Nor does it count at another upstream's address, or as a sign-in.
        own = {"Cookie": cookies_of(alice.browser, s.world.issuer)}
        for path in (
            f"/oauth/callback/first?code=x&state={state}",
            f"/oauth/callback/second?code=x&state={state.removeprefix('connect.')}",
        ):
            assert (await s.world.call("GET", path, headers=own)).status == 400
        page = await log_in(alice.browser, page, "alice")
        assert "is connected" in (await press(alice.browser, page, "confirm")).text


async def test_the_upstream_that_names_the_user_attaches_nobody_else_to_them(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        await sql(tmp_path, "UPDATE connections SET dead = 1, rejected = 1")
        url = await s.link(alice.jwt, "first")
        page = await press(alice.browser, await alice.browser.open(url), "connect")
        page = await log_in(alice.browser, page, "bob")
        assert (page.status, "another account" in page.text) == (403, True)
        assert (await s.exchange(alice.jwt, "first")).status == 400


# Forgeries from another site.


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_a_form_of_another_site_does_nothing(tmp_path: Path, site: str) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        cookie = cookies_of(alice.browser, s.world.issuer)
        fields = hidden(await alice.browser.open(url)) | {"decision": "connect"}
        answer = await post(s, url, fields, cookie, Sec_Fetch_Site=site)
        assert answer.status == 403
        page = await to_confirmation(s, alice.browser, url)
        fields = hidden(page) | {"decision": "confirm"}
        answer = await post(s, "/connect/confirm", fields, cookie, Sec_Fetch_Site=site)
        assert answer.status == 403
        assert "is connected" in (await press(alice.browser, page, "confirm")).text


@pytest.mark.parametrize("decision", ["sign_in", "sign_in_other", "connect", "confirm", ""])
@pytest.mark.parametrize("token", [None, "", "0" * 64])
async def test_without_the_forms_token_nobody_is_sent_upstream(
    tmp_path: Path, decision: str, token: str | None
) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        await alice.browser.open(url)
        fields = {"decision": decision} | ({} if token is None else {"token": token})
        answer = await post(s, url, fields, cookies_of(alice.browser, s.world.issuer))
        assert (answer.status, answer.headers.get("Location")) == (403, None)
        answer = await post(s, url, fields, "")
        assert (answer.status, answer.headers.get("Location")) == (403, None)


@pytest.mark.parametrize("fields", [{}, {"decision": "allow"}, {"decision": "confirm"}])
async def test_a_confirmation_without_its_handle_is_refused(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        cookie = cookies_of(alice.browser, s.world.issuer)
        answer = await post(s, "/connect/confirm", fields, cookie)
        assert answer.status in (400, 403)
        assert is_over(await s.world.call("GET", "/connect/confirm"))


# What other clients may use (an authorization is for what its page named).


async def with_and_without(s: Scene, browser: Browser) -> tuple[Person, Person]:
    """Two clients of alice: one signed in before the map named the second upstream."""
    await s.world.reconfigure(resources=notes(upstreams=["first"]))
    old = await signed_in(s, browser, "alice", "Old Reader")
    await s.world.reconfigure(resources=notes())
    async with Browser(leave_at=CALLBACK) as elsewhere:
        new = await signed_in(s, elsewhere, "alice", "New Writer")
    return old, new


@pytest.mark.parametrize("stored_by_an_earlier_version", [False, True])
async def test_a_session_uses_only_upstreams_that_its_own_authorization_named(
    tmp_path: Path, stored_by_an_earlier_version: bool
) -> None:
    async with scene(tmp_path) as s, Browser(leave_at=CALLBACK) as browser:
        old, new = await with_and_without(s, browser)
        if stored_by_an_earlier_version:
            await sql(
                tmp_path, "UPDATE sessions SET upstreams = NULL WHERE client_id = ?", old.client_id
            )
        page = await to_confirmation(s, browser, await s.link(new.jwt))
        assert "New Writer" in page.text
        assert "Old Reader" not in page.text
        await press(browser, page, "confirm")
        assert s.whose(await s.exchange(new.jwt)) == "alice"
        refused = await s.exchange(old.jwt)
        assert refused.json()["error"] == "invalid_grant"
        assert s.whose(await s.exchange(old.jwt, "first"), s.first) == "alice"
        # Its own page names it, and is its user's word for it.
        page = await to_confirmation(s, browser, refused.json()["connect_url"])
        assert "Old Reader" in page.text
        assert "New Writer" in page.text
        await press(browser, page, "confirm")
        assert s.whose(await s.exchange(old.jwt)) == "alice"


async def test_a_later_sign_in_gives_older_sessions_nothing_either(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, Browser(leave_at=CALLBACK) as browser:
        await s.world.reconfigure(resources=notes(upstreams=["first"]))
        old = await signed_in(s, browser, "alice", "Old Reader")
        await sql(tmp_path, "UPDATE sessions SET upstreams = NULL")
        await s.world.reconfigure(resources=notes(upstreams=["first", "second"]))
        async with Browser(leave_at=CALLBACK) as elsewhere:
            page = await elsewhere.open(s.world.authorize_url(old.client_id, Pkce()))
            page = await press(elsewhere, page, "allow")
            page = await log_in(elsewhere, page, "alice")
            page = await log_in(elsewhere, page, "bob")
            assert page.query.get("code"), page.text
        assert (await s.exchange(old.jwt)).status == 400
        assert s.whose(await s.exchange(old.jwt, "first"), s.first) == "alice"


async def test_every_application_that_can_use_the_account_is_named(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s, client_name="One <b>") as alice:
        await signed_in(s, alice.browser, "alice", "Two")
        async with Browser(leave_at=CALLBACK) as elsewhere:
            await signed_in(s, elsewhere, "bob", "Somebody else's")
        page = await to_confirmation(s, alice.browser, await s.link(alice.jwt))
        for name in ("One &lt;b&gt;", "Two"):
            assert name in page.text
        assert "Somebody" not in page.text


# Logs.


async def test_a_link_is_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with scene(tmp_path) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        page = await connected(s, alice.browser, url)
        assert page.status == 200
        await s.world.call("GET", f"{url}x")
    secret = urlsplit(url).path.rpartition("/")[2]
    assert len(secret) > 100
    ours = [one for one in caplog.records if one.name.startswith("tokenward")]
    assert ours
    for record in ours:
        assert secret not in str(record.__dict__)
    events = [record.__dict__ for record in ours if "'connect'" in str(record.__dict__)]
    assert events, "the audit trail says that an account was connected"


async def test_an_answer_of_a_server_without_a_second_upstream_carries_a_link_too(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in()
        await sql(tmp_path, "UPDATE connections SET dead = 1, rejected = 1")
        answer = await world.exchange(NOTES_SERVER, alice.access_token)
        assert answer.json()["connect_url"].startswith(f"{world.issuer}/connect/")
