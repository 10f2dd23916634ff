"""Every page at 200 % zoom, in a narrow window, with large text, and with the keyboard alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page

from tests.browser.chromium import browser
from tests.browser.pages import SCHEME, watched
from tests.browser.test_accessibility import RULES
from tests.support.connecting import Person, Scene, person, scene
from tests.support.deployment import Pkce

pytestmark = pytest.mark.timeout(180)

# A 1280 pixels wide window at 200 %, and the narrowest of WCAG 2.2's criterion 1.4.10.
ZOOMED, NARROW = 640, 320


@asynccontextmanager
async def visit(folder: Path, width: int, *, scripts: bool) -> AsyncIterator["Visit"]:
    async with (
        scene(folder) as s,
        person(s, client_name="Notes Assistant") as alice,
        browser(width=width, scripts=scripts) as context,
    ):
        yield Visit(s, alice, (await watched(context)).page)


class Visit:
    def __init__(self, s: Scene, alice: Person, page: Page) -> None:
        self.scene, self.alice, self.page = s, alice, page

    async def consent(self) -> None:
        world = self.scene.world
        client = await world.register(redirect_uris=[SCHEME], client_name="Notes Assistant")
        await self.page.goto(world.authorize_url(client["client_id"], Pkce(), redirect_uri=SCHEME))

    async def focus(self, wanted: Locator) -> None:
        """Go there with the tabulator. Everything on the way shows where it is."""
        for _ in range(20):
            if await wanted.evaluate("e => e === document.activeElement"):
                return
            await self.page.keyboard.press("Tab")
            # After the last element the browser's own bar has its turn: nothing of the page.
            unseen = await self.page.evaluate(
                "(e => e !== document.body && getComputedStyle(e).outlineStyle === 'none'"
                " ? e.outerHTML : null)(document.activeElement)"
            )
            assert unseen is None
        text = await self.page.locator("main").inner_text()
        raise AssertionError(f"the keyboard does not reach {wanted}: {text}")

    async def press(self, name: str, role: str = "button") -> None:
        await self.focus(self.page.get_by_role(role, name=name, exact=True))  # type: ignore[arg-type]
        await self.page.keyboard.press("Enter")

    async def type(self, label: str, text: str) -> None:
        await self.focus(self.page.get_by_label(label))
        await self.page.keyboard.type(text)

    async def log_in(self, user: str, password: str) -> None:
        await self.page.get_by_role("heading", name="Sign in to Acme").wait_for()
        await self.type("User", user)
        await self.type("Password", password)
        await self.press("Sign in")

    async def check(self, width: int) -> None:
        """Nothing is cut off or sticks out, and no rule is broken."""
        assert await self.page.evaluate("document.documentElement.scrollWidth") <= width
        cut_off = await self.page.evaluate(
            "[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1"
            " && getComputedStyle(e).display !== 'inline').map(e => e.outerHTML)"
        )
        assert cut_off == []
        found = await Axe().run(self.page, options=RULES)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize(
    ("width", "text"), [(ZOOMED, "100%"), (NARROW, "100%"), (ZOOMED, "200%")],
    ids=["zoom", "narrow", "large-text"],
)  # fmt: skip
async def test_every_page_can_be_read_when_it_is_large(
    tmp_path: Path, width: int, text: str
) -> None:
    async with visit(tmp_path, width, scripts=True) as seen:
        page = seen.page

        async def check() -> None:
            await page.evaluate(f"document.documentElement.style.fontSize = '{text}'")
            await seen.check(width)

        issuer, url = seen.scene.world.issuer, await seen.scene.link(seen.alice.jwt)
        await page.goto(f"{issuer}/")
        await check()
        await seen.consent()
        await page.get_by_text("Technical details").click()
        await check()
        await page.goto(f"{issuer}/oauth/authorize")  # an error
        await check()
        await page.goto(url)
        await check()
        await page.get_by_role("button", name="Sign in").click()
        await seen.log_in("alice", "rabbit")
        await page.get_by_role("heading", name="Connect your second account?").wait_for()
        await check()
        await page.get_by_role("button", name="Continue to second").click()
        await seen.log_in("alice", "rabbit")
        await page.get_by_role("heading", name="Connect alice at second?").wait_for()
        await check()
        await page.get_by_role("button", name="Connect", exact=True).click()
        await page.get_by_role("heading", name="Your second account is connected").wait_for()
        await check()
        await page.goto(f"{issuer}/connections")
        await check()


async def test_a_sign_in_and_a_connection_need_no_script_and_no_mouse(tmp_path: Path) -> None:
    async with visit(tmp_path, 1280, scripts=False) as seen:
        page = seen.page
        await seen.consent()
        await seen.press("Allow")
        await seen.log_in("alice", "rabbit")
        await page.get_by_role("heading", name="You are connected").wait_for()
        # That page is on its way to the application; a person opens another one.
        seen.page = page = await page.context.new_page()
        await page.goto(await seen.scene.link(seen.alice.jwt))
        await seen.press("Continue to second")
        await seen.log_in("bob", "humbug")
        await page.get_by_role("heading", name="Connect bob at second?").wait_for()
        await seen.press("Connect")
        await page.get_by_role("heading", name="Your second account is connected").wait_for()
        assert seen.scene.whose(await seen.scene.exchange(seen.alice.jwt)) == "bob"
        await page.goto(f"{seen.scene.world.issuer}/")
        await seen.press("See your connections", "link")
        await page.get_by_role("heading", name="Your connections").wait_for()
        await seen.press("Disconnect")
        await page.get_by_text("Nothing is connected").wait_for()
        await seen.press("Sign out everywhere")
        await page.get_by_role("heading", name="You are not signed in").wait_for()
        assert (await seen.scene.exchange(seen.alice.jwt)).status == 400
