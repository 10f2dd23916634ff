"""The pages of a connect link and of connections in a real browser: by axe's rules, by keyboard."""

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from tests.browser.chromium import browser
from tests.browser.pages import keep, watched
from tests.browser.test_accessibility import RULES, WIDTHS
from tests.support.connecting import person, scene

pytestmark = pytest.mark.timeout(180)


async def checked(page: Page, name: str, device: str, colours: str) -> None:
    """No rule is broken, and nothing sticks out sideways."""
    await keep(page, f"{name}-{device}-{colours}")
    found = await Axe().run(page, options=RULES)
    assert found.violations_count == 0, found.generate_report()
    assert await page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device]


async def by_keyboard(page: Page, button: str) -> None:
    """Reach a button with the tabulator and press it."""
    wanted = page.get_by_role("button", name=button, exact=True)
    for _ in range(10):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("e => e === document.activeElement"):
            break
    await page.keyboard.press("Enter")


async def logged_in(page: Page, user: str, password: str) -> None:
    await page.get_by_label("User").fill(user)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
async def test_a_persons_own_pages_keep_the_rules_of_accessibility(
    tmp_path: Path, device: str, colours: Literal["light", "dark"]
) -> None:
    async with (
        scene(tmp_path) as s,
        person(s, client_name="Notes Assistant") as alice,
        browser(width=WIDTHS[device], colours=colours, scripts=True) as context,
    ):
        seen = await watched(context)
        page, url = seen.page, await s.link(alice.jwt)
        await page.goto(f"{url}x")
        await checked(page, "connect-over", device, colours)
        await page.goto(url)
        await checked(page, "connect-sign-in", device, colours)
        await page.get_by_role("button", name="Sign in").click()
        await logged_in(page, "alice", "rabbit")
        await page.get_by_role("heading", name="Connect your second account?").wait_for()
        await checked(page, "connect", device, colours)
        await by_keyboard(page, "Continue to second")
        await logged_in(page, "bob", "humbug")
        await page.get_by_role("heading", name="Connect bob at second?").wait_for()
        await checked(page, "connect-confirm", device, colours)
        await by_keyboard(page, "Connect")
        await page.get_by_role("heading", name="Your second account is connected").wait_for()
        await checked(page, "connect-done", device, colours)
        assert s.whose(await s.exchange(alice.jwt)) == "bob"
        await page.goto(f"{s.world.issuer}/connections")
        await checked(page, "connections", device, colours)
        await by_keyboard(page, "Disconnect")
        await page.get_by_text("Nothing is connected").wait_for()
        await checked(page, "connections-none", device, colours)
        await by_keyboard(page, "Sign out everywhere")
        await page.get_by_role("heading", name="You are not signed in").wait_for()
        await page.get_by_role("link", name="See your connections").click()
        await page.get_by_role("button", name="Sign in with first").wait_for()
        await checked(page, "connections-sign-in", device, colours)


async def test_another_user_sees_that_the_link_is_not_theirs(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice, browser() as context:
        seen = await watched(context)
        page = seen.page
        await page.goto(await s.link(alice.jwt))
        await page.get_by_role("button", name="Sign in").click()
        await logged_in(page, "bob", "humbug")
        await page.get_by_text("made for another person").wait_for()
        assert (await s.exchange(alice.jwt)).status == 400
