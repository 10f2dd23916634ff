"""Our pages in a real browser: they work without scripts, by keyboard, on a phone, in the dark."""

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.async_api import Page

from tests.browser.chromium import browser
from tests.browser.pages import SCHEME, Watched, keep, logged_in, watched
from tests.fakes.web_site import web_site
from tests.support.deployment import Deployment, Pkce, deployed

pytestmark = pytest.mark.timeout(120)


async def asked(world: Deployment, watched: Watched, redirect_uri: str, **metadata: Any) -> None:
    """Open our consent page for a fresh client."""
    client = await world.register(redirect_uris=[redirect_uri], **metadata)
    url = world.authorize_url(client["client_id"], Pkce(), redirect_uri=redirect_uri)
    response = await watched.page.goto(url)
    assert response is not None
    assert response.status == 200


async def test_a_sign_in_follows_the_whole_chain_of_redirects(tmp_path: Path) -> None:
    """Consent, upstream, callback and the client's own address: four origins' worth of hops."""
    async with web_site() as client, deployed(tmp_path) as world, browser() as context:
        client.put("/callback", b"<title>back</title>", media_type="text/html")
        client.put("/favicon.ico", b"", media_type="image/png")
        seen = await watched(context)
        await asked(world, seen, f"{client.url}/callback")
        await keep(seen.page, "consent")
        await seen.page.get_by_role("button", name="Allow", exact=True).click()
        await logged_in(seen)
        await seen.page.wait_for_url(re.compile(r".*/callback\?.*"))
        answer = dict(parse_qsl(urlsplit(seen.page.url).query))
        assert set(answer) == {"code", "state", "iss"}
        assert answer["iss"] == world.issuer
        assert seen.complaints == []


async def test_the_second_time_the_browser_is_known_and_the_consent_is_asked(
    tmp_path: Path,
) -> None:
    async with web_site() as client, deployed(tmp_path) as world, browser() as context:
        client.put("/callback", b"<title>back</title>", media_type="text/html")
        seen = await watched(context)
        for turn in range(2):
            await asked(world, seen, f"{client.url}/callback")
            await seen.page.get_by_role("button", name="Allow", exact=True).click()
            if turn == 0:
                await logged_in(seen)
            await seen.page.wait_for_url(re.compile(r".*/callback\?.*"))
        assert world.upstream.grants.counts["alice"].code_redemptions == 1


async def test_a_no_reaches_the_client(tmp_path: Path) -> None:
    async with web_site() as client, deployed(tmp_path) as world, browser() as context:
        client.put("/callback", b"<title>back</title>", media_type="text/html")
        seen = await watched(context)
        await asked(world, seen, f"{client.url}/callback")
        await seen.page.get_by_role("button", name="Deny").click()
        await seen.page.wait_for_url(re.compile(r".*/callback\?.*"))
        assert dict(parse_qsl(urlsplit(seen.page.url).query))["error"] == "access_denied"


@pytest.mark.parametrize(
    ("decision", "heading"), [("Allow", "You are connected"), ("Deny", "Nothing was connected")]
)
async def test_an_application_with_its_own_scheme_leaves_a_page_behind(
    tmp_path: Path, decision: str, heading: str
) -> None:
    async with deployed(tmp_path) as world, browser() as context:
        seen = await watched(context)
        await asked(world, seen, SCHEME)
        await seen.page.get_by_role("button", name=decision, exact=True).click()
        if decision == "Allow":
            await logged_in(seen)
        await seen.page.get_by_role("heading", name=heading).wait_for()
        link = seen.page.get_by_role("link", name="Return to the application")
        href = await link.get_attribute("href")
        assert href is not None
        assert href.startswith(f"{SCHEME}?")
        expected = {"code", "state", "iss"} if decision == "Allow" else {"error", "state", "iss"}
        assert set(dict(parse_qsl(urlsplit(href).query))) == expected
        await keep(seen.page, "signed-in" if decision == "Allow" else "denied")


async def test_pages_can_be_used_by_keyboard_alone(tmp_path: Path) -> None:
    async with web_site() as client, deployed(tmp_path) as world, browser() as context:
        client.put("/callback", b"<title>back</title>", media_type="text/html")
        seen = await watched(context)
        await asked(world, seen, f"{client.url}/callback")
        await seen.page.keyboard.press("Tab")
        focused = seen.page.locator(":focus")
        assert await focused.text_content() == "Allow"
        outline = await _style(seen.page, "button:focus", "outline-style")
        assert outline != "none", "where the keyboard is can be seen"
        await seen.page.keyboard.press("Tab")
        assert await focused.text_content() == "Deny"
        await seen.page.keyboard.press("Enter")
        await seen.page.wait_for_url(re.compile(r".*/callback\?.*"))


async def _style(page: Page, selector: str, name: str) -> str:
    """A computed style; scripts are off for pages, not for Playwright's own look at them."""
    element = page.locator(selector).first
    found = await element.evaluate(f"e => getComputedStyle(e).getPropertyValue('{name}')")
    return str(found)


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_every_text_can_be_read(tmp_path: Path, colours: Literal["light", "dark"]) -> None:
    """A contrast of 4.5 to 1 at least, as WCAG 2 asks for at level AA."""
    async with deployed(tmp_path) as world, browser(colours=colours) as context:
        seen = await watched(context)
        await asked(world, seen, SCHEME)
        await keep(seen.page, f"consent-{colours}")
        paper = await _style(seen.page, "main", "background-color")
        for selector in ("h1", "p", "dt", "dd", "code", "button:not(.primary)", ".note"):
            ink = await _style(seen.page, selector, "color")
            assert _contrast(ink, paper) >= 4.5, selector
        button = ".primary"
        ink = await _style(seen.page, button, "color")
        assert _contrast(ink, await _style(seen.page, button, "background-color")) >= 4.5


def _contrast(one: str, other: str) -> float:
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


async def test_a_phone_needs_no_sideways_scrolling_and_buttons_fit_a_thumb(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, browser(width=360) as context:
        seen = await watched(context)
        await asked(world, seen, SCHEME, client_name="A client with a long name " * 5)
        await keep(seen.page, "consent-phone")
        width = await seen.page.locator("html").evaluate("e => e.scrollWidth")
        assert width <= 360
        for button in await seen.page.get_by_role("button").all():
            box = await button.bounding_box()
            assert box is not None
            assert box["height"] >= 44


async def test_pages_have_what_a_screen_reader_needs(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, browser() as context:
        seen = await watched(context)
        await asked(world, seen, SCHEME)
        page = seen.page
        assert await page.locator("html").get_attribute("lang") == "en"
        assert await page.get_by_role("main").count() == 1
        assert await page.get_by_role("heading", level=1).count() == 1
        assert "Test client" in await page.title()
        await page.goto(f"{world.issuer}/oauth/authorize?client_id=nobody")
        assert await page.get_by_role("alert").count() == 1
        assert await page.title() == "Sign-in stopped"
        await keep(page, "error")


async def test_pages_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, browser() as context:
        seen = await watched(context)
        await asked(world, seen, SCHEME, logo_uri="https://tracker.example/logo.png")
        assert seen.hosts == {urlsplit(world.issuer).netloc}
        assert seen.complaints == []


async def test_one_css_file_gives_pages_another_look(tmp_path: Path) -> None:
    (tmp_path / "house.css").write_text(":root { --paper: rgb(1, 2, 3) }\n")
    async with deployed(tmp_path, pages={"styleFile": "house.css"}) as world, browser() as context:
        seen = await watched(context)
        await asked(world, seen, SCHEME)
        assert await _style(seen.page, "main", "background-color") == "rgb(1, 2, 3)"
        assert seen.complaints == []


async def test_a_page_of_ours_cannot_be_framed(tmp_path: Path) -> None:
    async with web_site() as evil, deployed(tmp_path) as world, browser() as context:
        client = await world.register(redirect_uris=[SCHEME])
        url = world.authorize_url(client["client_id"], Pkce(), redirect_uri=SCHEME)
        frame = f'<iframe src="{url.replace("&", "&amp;")}"></iframe>'.encode()
        evil.put("/", frame, media_type="text/html")
        seen = await watched(context)
        await seen.page.goto(f"{evil.url}/")
        framed = seen.page.frame_locator("iframe")
        assert await framed.get_by_role("button", name="Allow").count() == 0
        assert any("frame-ancestors" in line or "X-Frame" in line for line in seen.complaints)
