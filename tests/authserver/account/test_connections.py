"""The page /connections: what a person sees of their own, and how they end it."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from yarl import URL

from demo.browser import Browser, Page
from demo.forms import Form, parse_forms
from demo.upstream.protocol import InvalidToken
from tests.support.browser_logins import home
from tests.support.connecting import Scene, connected, person, scene, signed_in
from tests.support.database_file import count, dump, sql
from tests.support.deployment import CALLBACK, NOTES, Answer, log_in
from tests.support.workloads import DENIED, NOTES_SERVER, verdict


def cookies(browser: Browser, s: Scene) -> dict[str, str]:
    return {one.name: one.value for one in browser.cookies.sent_to(URL(s.world.issuer))}


def sent(values: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in values.items())


async def page_of(s: Scene, browser: Browser) -> Page:
    return await browser.open(f"{s.world.issuer}/connections")


def form_with(page: Page | Answer, decision: str) -> Form:
    """The first form of a page that has this button."""
    forms = parse_forms(page.text)
    return next(form for form in forms if ("resource" in form.fields) is (decision == "disconnect"))


async def end(s: Scene, browser: Browser, decision: str, **headers: str) -> Answer:
    """Press a button of the page as the browser would."""
    page = await page_of(s, browser)
    data = dict(form_with(page, decision).fields) | {"decision": decision}
    return await posted(s, data, cookies(browser, s), **headers)


async def posted(
    s: Scene, data: Mapping[str, str], jar: Mapping[str, str], **headers: str
) -> Answer:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return await s.world.call(
        "POST", "/connections", data=data, headers={"Cookie": sent(jar)} | more
    )


async def test_a_person_sees_servers_upstreams_scopes_and_applications(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s, client_name="Notes <Assistant>") as alice:
        await signed_in(s, alice.browser, "alice", "Second")
        async with Browser(leave_at=CALLBACK) as elsewhere:
            await signed_in(s, elsewhere, "bob", "Somebody else's")
        before = await dump(tmp_path)
        page = await page_of(s, alice.browser)
        for text in (
            "signed in as <strong>alice</strong>",
            NOTES,
            "first: connected",
            "See your name and profile",
            "second: not connected",
            "Notes &lt;Assistant&gt;",
            "Second",
            "Needs you again on",
        ):
            assert text in page.text, text
        assert "Somebody" not in page.text
        assert await dump(tmp_path) == before, "a GET changes nothing"
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


async def test_first_and_last_use_are_told_by_day(tmp_path: Path) -> None:
    async with scene(tmp_path, lifetimes={"browserSession": "30d"}) as s, person(s) as alice:
        began = s.world.clock()
        s.world.clock.advance(3 * 86400)
        refreshed = await s.world.refresh(alice.client_id, alice.refresh_token)
        assert refreshed.status == 200
        text = (await page_of(s, alice.browser)).text
        assert f"first used {day(began)}, last {day(s.world.clock())}" in text
        assert day(began + 90 * 86400) in text


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


async def test_a_dead_connection_is_shown_and_mended_from_the_page(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        await connected(s, alice.browser, await s.link(alice.jwt))
        assert "second: connected" in (await page_of(s, alice.browser)).text
        await sql(
            tmp_path, "UPDATE connections SET dead = 1, rejected = 1 WHERE upstream = 'second'"
        )
        page = await page_of(s, alice.browser)
        assert "second: needs you again" in page.text
        assert "first: connected" in page.text
        start = page.text.index(f'href="{s.world.issuer}/connect/') + len('href="')
        url = page.text[start : page.text.index('"', start)]
        assert "is connected" in (await connected(s, alice.browser, url)).text
        assert "second: connected" in (await page_of(s, alice.browser)).text


async def test_disconnect_ends_the_sessions_at_one_server_and_revokes_upstream(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        other = await signed_in(s, alice.browser, "alice")
        token = (await s.exchange(alice.jwt, "first")).json()["access_token"]
        assert (await end(s, alice.browser, "disconnect")).status == 303
        await s.world.server.drain()
        for gone in (alice, other):
            answer = await s.world.exchange(NOTES_SERVER, gone.jwt, audience="first")
            assert verdict(answer) == DENIED
            refused = await s.world.refresh(gone.client_id, gone.refresh_token)
            assert refused.json()["error"] == "invalid_grant"
        assert s.whose(await s.exchange(bob.jwt, "first"), s.first) == "bob"
        assert await count(tmp_path, "connections") == 1
        with pytest.raises(InvalidToken):
            s.first.grants.bearer(token)
        page = await page_of(s, alice.browser)
        assert "Nothing is connected" in page.text
        assert "signed in as" in page.text, "the browser stays signed in"


async def test_signing_out_everywhere_ends_every_session_and_every_browser(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        async with Browser(leave_at=CALLBACK) as elsewhere:
            other = await signed_in(s, elsewhere, "alice")
            answer = await end(s, alice.browser, "sign_out_everywhere")
            assert (answer.status, answer.headers["Location"]) == (303, f"{s.world.issuer}/")
            for jwt in (alice.jwt, other.jwt):
                refused = await s.world.exchange(NOTES_SERVER, jwt, audience="first")
                assert verdict(refused) == DENIED
            for browser in (alice.browser, elsewhere):
                assert "Sign in to see" in (await page_of(s, browser)).text
        assert "signed in as" in (await page_of(s, bob.browser)).text
        assert s.whose(await s.exchange(bob.jwt, "first"), s.first) == "bob"


# Who, and from where.


@pytest.mark.parametrize("decision", ["disconnect", "sign_out_everywhere"])
@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_a_form_of_another_site_ends_nothing(
    tmp_path: Path, decision: str, site: str
) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        assert (await end(s, alice.browser, decision, Sec_Fetch_Site=site)).status == 403
        assert s.whose(await s.exchange(alice.jwt, "first"), s.first) == "alice"


@pytest.mark.parametrize("decision", ["disconnect", "sign_out_everywhere", "", "other"])
async def test_without_session_or_token_nothing_is_ended(tmp_path: Path, decision: str) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        mine, his = cookies(alice.browser, s), cookies(bob.browser, s)
        session = his["tokenward-session"]
        foreign = hashlib.sha256(f"connections {session}".encode()).hexdigest()
        fields = {"decision": decision, "resource": NOTES}
        for token, jar in (
            ("", mine),
            ("0" * 64, mine),
            (foreign, mine),
            (foreign, {"tokenward": his["tokenward"]}),
        ):
            answer = await posted(s, fields | {"token": token}, jar)
            assert answer.status == 403, (token, jar)
        assert s.whose(await s.exchange(alice.jwt, "first"), s.first) == "alice"
        assert s.whose(await s.exchange(bob.jwt, "first"), s.first) == "bob"


async def test_only_ones_own_sessions_are_ended_whatever_server_is_named(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, person(s, "bob") as bob:
        page = await page_of(s, bob.browser)
        data = dict(form_with(page, "disconnect").fields) | {"decision": "disconnect"}
        jar = cookies(bob.browser, s)
        assert (await posted(s, data | {"resource": "https://x.example"}, jar)).status == 303
        assert s.whose(await s.exchange(bob.jwt, "first"), s.first) == "bob"
        assert (await posted(s, data, jar)).status == 303
        assert s.whose(await s.exchange(alice.jwt, "first"), s.first) == "alice"


# The sign-in for the page alone.


async def test_a_known_person_signs_in_and_sees_their_own(tmp_path: Path) -> None:
    async with (
        scene(tmp_path) as s,
        person(s, client_name="Notes Assistant"),
        Browser() as elsewhere,
    ):
        page = await page_of(s, elsewhere)
        assert "Notes Assistant" not in page.text
        connections = await sql(tmp_path, "SELECT upstream, generation FROM connections")
        page = await elsewhere.submit(page, press=("upstream", "first"))
        page = await log_in(elsewhere, page, "alice")
        assert page.url == f"{s.world.issuer}/connections"
        assert "Notes Assistant" in page.text
        stored = await sql(tmp_path, "SELECT upstream, generation FROM connections")
        assert stored == connections, "nobody agreed to a new use of the account"


async def test_a_person_who_is_not_known_becomes_nobody(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s), Browser() as elsewhere:
        before = await dump(tmp_path)
        page = await elsewhere.submit(await page_of(s, elsewhere), press=("upstream", "first"))
        page = await log_in(elsewhere, page, "bob")
        assert (page.status, "Nothing of yours" in page.text) == (404, True)
        assert await dump(tmp_path) == before


async def test_a_blocked_person_is_told_so_and_signed_in_nowhere(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, Browser() as elsewhere:
        page = await elsewhere.submit(await page_of(s, elsewhere), press=("upstream", "first"))
        await sql(tmp_path, "UPDATE users SET blocked_at = 1")
        browsers = await count(tmp_path, "browser_sessions")
        page = await log_in(elsewhere, page, "alice")
        assert (page.status, "has blocked you" in page.text) == (403, True)
        assert await count(tmp_path, "browser_sessions") == browsers
        assert "Sign in to see" in (await page_of(s, alice.browser)).text


async def test_only_an_upstream_that_names_users_signs_in(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s), Browser() as elsewhere:
        page = await page_of(s, elsewhere)
        (form,) = parse_forms(page.text)
        jar = sent(cookies(elsewhere, s))
        good = dict(form.fields)

        async def begin(data: Mapping[str, str], cookie: str, **headers: str) -> Answer:
            return await s.world.call(
                "POST",
                "/connections/sign-in",
                data=data,
                headers={"Cookie": cookie} | headers,
            )

        assert (await begin(good | {"upstream": "first"}, jar)).status == 303
        for data, cookie in (
            (good | {"upstream": "second"}, jar),
            (good | {"upstream": "nobody"}, jar),
            (good, jar),
            ({"upstream": "first"}, jar),
            (good | {"upstream": "first", "token": "0" * 64}, jar),
            (good | {"upstream": "first"}, "tokenward=x"),
            (good | {"upstream": "first"}, ""),
        ):
            answer = await begin(data, cookie)
            assert (answer.status, answer.headers.get("Location")) == (403, None), data
        crossed = {"Sec-Fetch-Site": "cross-site"}
        assert (await begin(good | {"upstream": "first"}, jar, **crossed)).status == 403


async def test_the_sign_ins_answer_counts_at_its_own_browser_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, Browser() as elsewhere:
        page = await elsewhere.submit(await page_of(s, elsewhere), press=("upstream", "first"))
        state = page.query["state"]
        callback = f"/oauth/callback/first?code=x&state={state}"
        for cookie in ("", sent(cookies(alice.browser, s))):
            refused = await s.world.call("GET", callback, headers={"Cookie": cookie})
            assert refused.status == 400
        denied = f"/oauth/callback/first?error=access_denied&state={state}"
        jar = {"Cookie": sent(cookies(elsewhere, s))}
        assert "You were not signed in" in (await s.world.call("GET", denied, headers=jar)).text
        assert (await s.world.call("GET", denied, headers=jar)).status == 400


async def test_the_front_page_leads_there(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        for cookie in (None, sent(cookies(alice.browser, s))):
            assert f'href="{s.world.issuer}/connections"' in (await home(s.world, cookie)).text


# Tokens that an exchange makes.

ORDERS = {
    "name": "orders",
    "displayName": "Orders",
    "exchange": {"upstream": "second", "audience": "orders"},
    "scopes": ["orders.read"],
    "scopeDescriptions": {"orders.read": "Read your orders"},
}


async def with_orders(s: Scene) -> None:
    """Tokens of `orders` are made of those of `second`."""
    configuration = yaml.safe_load((s.world.folder / "authserver.yaml").read_text())
    (notes,) = configuration["resources"]
    await s.world.reconfigure(
        upstreams=[*configuration["upstreams"], ORDERS],
        resources=[notes | {"upstreams": [*notes["upstreams"], "orders"]}],
    )


async def test_what_an_exchange_makes_is_shown_and_mended_as_what_it_is_made_of(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s:
        await with_orders(s)
        async with person(s) as alice:
            page = (await page_of(s, alice.browser)).text
            assert "Orders: not connected" in page
            assert "Once connected, the server can use your account to:" in page
            assert "Read your orders" in page
            assert "Connect Orders" in page
            url = await s.link(alice.jwt)
            asked = (await alice.browser.open(url)).text
            assert "With your second account, this server will be able to use Orders to:" in asked
            await connected(s, alice.browser, url)
            page = (await page_of(s, alice.browser)).text
            assert "second: connected" in page
            assert "Orders: connected" in page
            await sql(tmp_path, "UPDATE connections SET dead = 1 WHERE upstream = 'second'")
            page = (await page_of(s, alice.browser)).text
            assert "Orders: needs you again" in page
            assert "Reconnect Orders" in page
