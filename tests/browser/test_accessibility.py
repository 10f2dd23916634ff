"""Every page by axe-core's rules for WCAG 2.2 AA, and pictures of them: desktop and phone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import BrowserContext, Page

from tests.browser.chromium import browser
from tests.browser.pages import SCHEME, keep, logged_in, watched
from tests.support.deployment import Deployment, Pkce, deployed

pytestmark = pytest.mark.timeout(180)

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
WIDTHS = {"desktop": 1280, "phone": 390}


@dataclass
class Visit:
    """A person at a browser, in front of one deployment."""

    world: Deployment
    page: Page
    device: str
    colours: str

    async def ask(self, **changes: Any) -> None:
        client = await self.world.register(redirect_uris=[SCHEME], client_name="Notes Assistant")
        url = self.world.authorize_url(client["client_id"], Pkce(), redirect_uri=SCHEME, **changes)
        await self.page.goto(url)

    async def press(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def check_rules(self) -> None:
        found = await Axe().run(self.page, options=RULES)
        assert found.violations_count == 0, found.generate_report()

    async def check(self, name: str) -> None:
        """No rule is broken, and nothing sticks out sideways."""
        await keep(self.page, f"{name}-{self.device}-{self.colours}")
        await self.check_rules()
        width = await self.page.evaluate("document.documentElement.scrollWidth")
        assert width <= WIDTHS[self.device]
        for button in await self.page.locator("button, .button").all():
            box = await button.bounding_box()
            assert box is not None
            assert box["height"] >= 44


def upstreams(world_issuer: str, folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "name": "acme",
            "displayName": "Acme Works",
            "type": "oidc",
            "issuer": world_issuer,
            "clientId": "tokenward",
            "clientSecretFile": str(folder / "upstream-secret"),
            "scopes": ["openid", "profile", "email", "offline_access"],
        }
    ]


async def with_names(world: Deployment) -> None:
    """Give the upstream a name and scopes that say who signs in."""
    await world.reconfigure(upstreams=upstreams(world.upstream.issuer, world.folder))


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
async def test_every_page_keeps_the_rules_of_accessibility(
    tmp_path: Path, device: str, colours: Literal["light", "dark"]
) -> None:
    async with (
        deployed(tmp_path) as world,
        browser(width=WIDTHS[device], colours=colours, scripts=True) as context,
    ):
        await with_names(world)
        visit = Visit(world, await _page(context), device, colours)
        await visit.page.goto(f"{world.issuer}/")
        await visit.check("home-signed-out")
        await visit.ask()
        await visit.check("consent")
        await visit.page.get_by_text("Technical details").click()
        await visit.check("consent-details")
        await visit.press("Allow")
        await visit.page.get_by_role("heading", name="Sign in to Acme").wait_for()
        await visit.check_rules()  # the demo's page, in the middle of ours
        await _logged_in(visit.page)
        await visit.page.get_by_role("heading", name="You are connected").wait_for()
        assert await visit.page.get_by_text("alice at Acme Works").count() == 1
        await visit.check("connected")
        visit.page = await _page(context)
        await visit.ask()
        await visit.check("consent-signed-in")
        await visit.press("Deny")
        await visit.check("denied")
        visit.page = await _page(context)
        await visit.ask(response_type="bad")
        await visit.check("stopped")
        await visit.page.goto(f"{world.issuer}/oauth/authorize")
        await visit.check("error")
        await visit.page.goto(f"{world.issuer}/")
        await visit.check("home-signed-in")


async def _page(context: BrowserContext) -> Page:
    return (await watched(context)).page


async def _logged_in(page: Page) -> None:
    await page.get_by_label("User").fill("alice")
    await page.get_by_label("Password").fill("rabbit")
    await page.get_by_role("button", name="Sign in").click()


async def test_a_person_sees_as_whom_and_signs_out(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, browser() as context:
        await with_names(world)
        seen = await watched(context)
        visit = Visit(world, seen.page, "desktop", "light")
        await visit.ask()
        page = seen.page
        assert await page.get_by_text("use your Acme Works account to:").count() == 1
        assert await page.get_by_text("See your e-mail address").count() == 1
        details = page.locator("details")
        assert await details.get_attribute("open") is None, "the workload is a technical detail"
        await visit.press("Allow")
        await logged_in(seen)
        await page.get_by_role("heading", name="You are connected").wait_for()
        # That page is on its way to the application; a person opens another one.
        seen = await watched(context)
        visit.page = page = seen.page
        await visit.ask()
        assert await page.get_by_text("as alice at Acme Works").count() == 1
        await page.goto(f"{world.issuer}/")
        assert await page.get_by_text("signed in as alice at Acme Works").count() == 1
        await visit.press("Sign out")
        await page.get_by_role("heading", name="You are not signed in").wait_for()
        await visit.ask()
        assert await page.get_by_text("You are signed in").count() == 0
        assert seen.complaints == []


async def test_the_operators_name_logo_and_help_are_on_every_page(tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    pages = {
        "title": "Example Corp",
        "logoFile": "logo.svg",
        "supportUrl": "https://help.example.com/sign-in",
    }
    async with deployed(tmp_path, pages=pages) as world, browser() as context:
        seen = await watched(context)
        for path in ("/", "/oauth/authorize"):
            await seen.page.goto(f"{world.issuer}{path}")
            assert (await seen.page.title()).endswith(" | Example Corp")
            assert await seen.page.locator("header img").count() == 1
            link = seen.page.get_by_role("link", name="Get help")
            assert await link.get_attribute("href") == pages["supportUrl"]


async def test_in_forced_colours_allow_looks_unlike_deny(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, browser() as context:
        page = await _page(context)
        await page.emulate_media(forced_colors="active")
        await Visit(world, page, "desktop", "light").ask()
        await keep(page, "consent-forced-colours")
        widths = [
            await page.get_by_role("button", name=name, exact=True).evaluate(
                "e => getComputedStyle(e).borderTopWidth"
            )
            for name in ("Allow", "Deny")
        ]
        assert widths == ["3px", "1px"]
