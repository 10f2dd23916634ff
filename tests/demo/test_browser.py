"""The headless browser against a small site: forms, redirects, cookies, what it says of itself."""

import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from yarl import URL

from demo.browser import Browser, Hop, Page, TooManyRedirects
from demo.cookies import CookieJar
from demo.forms import NoSuchControl, parse_forms

FORM = """
<form action="/answer" method="POST">
  <input type="hidden" name="ticket" value="a&amp;b&quot;c">
  <input name="username"><input type="password" name="password">
  <input type="checkbox" name="remember"><input type="checkbox" name="agree" checked>
  <input name="old" value="x" disabled>
  <button name="decision" value="allow">Allow</button>
  <button name="decision" value="deny">Deny</button>
  <button type="button" name="help" value="1">Help</button>
  <input type="submit" name="later" value="Later">
</form>
"""


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """A form that is echoed, a redirect chain, and a page that sets cookies."""

    async def form(_: web.Request) -> web.Response:
        return web.Response(text=FORM, content_type="text/html")

    async def strict_form(_: web.Request) -> web.Response:
        headers = {"Referrer-Policy": "no-referrer"}
        return web.Response(text=FORM, content_type="text/html", headers=headers)

    async def echo(request: web.Request) -> web.Response:
        names = ("Origin", "Sec-Fetch-Site", "Cookie")
        said = {name: request.headers[name] for name in names if name in request.headers}
        return web.json_response({**said, **dict(await request.post())})

    async def cookies(_: web.Request) -> web.Response:
        answer = web.Response(status=302, headers={"Location": "/answer?code=secret"})
        answer.headers.add("Set-Cookie", "__Host-transaction=1; Path=/; Secure; HttpOnly")
        answer.headers.add("Set-Cookie", "plain=2; Path=/")
        return answer

    async def bounce(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/answer")

    async def circle(_: web.Request) -> web.Response:
        raise web.HTTPFound("/circle")

    application = web.Application()
    application.router.add_get("/form", form)
    application.router.add_get("/strict-form", strict_form)
    application.router.add_route("*", "/answer", echo)
    application.router.add_get("/cookies", cookies)
    application.router.add_post("/bounce", bounce)
    application.router.add_get("/circle", circle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_form_is_sent_with_its_hidden_fields_and_the_pressed_button(site: str) -> None:
    async with Browser() as browser:
        page = await browser.open(f"{site}/form")
        answer = await browser.submit(
            page, {"username": "älice", "password": "p&="}, press=("decision", "deny")
        )

    sent = json.loads(answer.text)
    assert sent == {
        "Origin": site,
        "Sec-Fetch-Site": "same-origin",
        "ticket": 'a&b"c',
        "username": "älice",
        "password": "p&=",
        "agree": "on",
        "decision": "deny",
    }


async def test_a_page_without_referrer_posts_a_null_origin(site: str) -> None:
    async with Browser() as browser:
        answer = await browser.submit(await browser.open(f"{site}/strict-form"))

    assert json.loads(answer.text)["Origin"] == "null"


async def test_a_typed_address_has_no_site_and_no_origin(site: str) -> None:
    async with Browser() as browser:
        answer = await browser.open(f"{site}/answer")

    assert json.loads(answer.text) == {"Sec-Fetch-Site": "none"}


async def test_hops_are_recorded_without_query_values_and_cookies_come_back(site: str) -> None:
    seen: list[Hop] = []
    async with Browser(on_hop=seen.append) as browser:
        answer = await browser.open(f"{site}/cookies")

    assert [(hop.method, hop.url, hop.status) for hop in seen] == [
        ("GET", f"{site}/cookies", 302),
        ("GET", f"{site}/answer?code=…", 200),
    ]
    assert browser.hops == seen
    assert "__Host-transaction=1" in answer.text
    assert "plain=2" in answer.text


async def test_the_browser_leaves_for_the_application_without_a_request(site: str) -> None:
    async with Browser(leave_at=f"{site}/answer") as browser:
        page = await browser.open(f"{site}/cookies")

    assert page.status is None
    assert page.query == {"code": "secret"}
    assert len(browser.hops) == 1


async def test_a_circle_of_redirects_ends(site: str) -> None:
    async with Browser() as browser:
        with pytest.raises(TooManyRedirects):
            await browser.open(f"{site}/circle")


async def test_a_temporary_redirect_keeps_method_and_body(site: str) -> None:
    async with Browser() as browser:
        page = await browser.open(f"{site}/form")
        moved = Page(page.url, 200, {}, page.text.replace("/answer", "/bounce"))
        answer = await browser.submit(moved, {"username": "bob"})

    assert json.loads(answer.text)["username"] == "bob"


async def test_what_the_page_does_not_offer_cannot_be_filled_or_pressed(site: str) -> None:
    async with Browser() as browser:
        page = await browser.open(f"{site}/form")
        with pytest.raises(NoSuchControl, match="no field"):
            await browser.submit(page, {"user": "alice"})
        with pytest.raises(NoSuchControl, match="no button"):
            await browser.submit(page, press=("decision", "maybe"))
        with pytest.raises(NoSuchControl, match="0 forms"):
            await browser.submit(await browser.open(f"{site}/answer"))


def test_every_button_that_submits_is_offered_and_no_other() -> None:
    [form] = parse_forms(FORM)

    assert form.buttons == [("decision", "allow"), ("decision", "deny"), ("later", "Later")]


def test_each_form_keeps_its_own_controls() -> None:
    one, two = parse_forms("<form action=a><input name=x></form><input name=y><form></form>")

    assert list(one.fields) == ["x"]
    assert not two.fields


@pytest.mark.parametrize(
    "set_cookie",
    [
        "__Host-a=1; Path=/",
        "__Host-a=1; Secure; Path=/x",
        "__Host-a=1; Secure",
        "__Host-a=1; Secure; Path=/; Domain=127.0.0.1",
        "__Secure-a=1; Path=/",
        "a=1; Domain=example.com",
    ],
)
def test_a_cookie_that_browsers_refuse_is_not_kept(set_cookie: str) -> None:
    jar = CookieJar()
    jar.take(URL("http://127.0.0.1:8080/"), set_cookie)

    assert not jar.sent_to(URL("http://127.0.0.1:8080/"))


def test_a_secure_cookie_needs_https_or_loopback() -> None:
    jar = CookieJar()
    jar.take(URL("http://example.com/"), "a=1; Secure; Path=/")
    jar.take(URL("https://example.com/"), "b=1; Secure; Path=/")

    assert [cookie.name for cookie in jar.sent_to(URL("https://example.com/"))] == ["b"]
    assert not jar.sent_to(URL("http://example.com/"))


def test_cookies_are_sent_to_their_host_and_path_on_any_port() -> None:
    jar = CookieJar()
    jar.take(URL("http://127.0.0.1:1/oauth/authorize"), "scoped=1")
    jar.take(URL("http://127.0.0.1:1/"), "wide=1; Path=/")

    sent = [cookie.name for cookie in jar.sent_to(URL("http://127.0.0.1:2/oauth/consent"))]
    assert sent == ["scoped", "wide"]
    assert [c.name for c in jar.sent_to(URL("http://127.0.0.1:1/oauthx"))] == ["wide"]
    assert not jar.sent_to(URL("http://localhost:1/oauth"))


@pytest.mark.parametrize("end", ["Max-Age=0", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_server_can_delete_its_cookie(end: str) -> None:
    jar, here = CookieJar(), URL("http://127.0.0.1/")
    jar.take(here, "a=1; Path=/")
    jar.take(here, f"a=; Path=/; {end}")

    assert not jar.sent_to(here)
