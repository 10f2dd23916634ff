"""`python -m tests.browser.pictures`: the pictures of our pages in docs/images, from a browser.

A file of sums says which templates they show, so that a test notices when they are old.
"""

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Final, Literal

from playwright.async_api import Page

from tests.browser.chromium import browser
from tests.browser.pages import SCHEME, Watched, logged_in, watched
from tests.support.connecting import Person, Scene, person, scene
from tests.support.deployment import Pkce

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "docs/images"
SUMS: Final = FOLDER / "pages.sha256"
_TEMPLATES: Final = ROOT / "authserver/public/templates"
_PHONE, _DESKTOP = 390, 900
NAMES: Final = (
    "consent-phone-light", "consent-phone-dark", "connect-phone-light", "connections-desktop-light",
    "connections-phone-dark",
)  # fmt: skip


def sums() -> str:
    """One line for each template that the pictures show."""
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(_TEMPLATES.iterdir())
        if file.suffix in (".html", ".css")
    )


async def draw() -> None:
    FOLDER.mkdir(exist_ok=True)
    for width, colours in ((_PHONE, "light"), (_PHONE, "dark"), (_DESKTOP, "light")):
        with tempfile.TemporaryDirectory() as folder:
            await _visit(Path(folder), width, colours)  # type: ignore[arg-type]
    SUMS.write_text(sums())


async def _visit(folder: Path, width: int, colours: Literal["light", "dark"]) -> None:
    kind = f"{'phone' if width == _PHONE else 'desktop'}-{colours}"
    async with (
        scene(folder) as s,
        person(s, client_name="Notes Assistant") as alice,
        browser(width=width, colours=colours) as context,
    ):
        s.second.token_members = {"authorization_expires_in": 30 * 86400}
        _name(s)
        seen = await watched(context)
        await _consent(s, seen.page)
        await _keep(seen.page, f"consent-{kind}")
        await _connect(s, alice, seen.page)
        await _keep(seen.page, f"connect-{kind}")
        await seen.page.get_by_role("button", name="Connect", exact=True).click()
        await seen.page.get_by_role("heading", name="is connected").wait_for()
        await seen.page.goto(f"{s.world.issuer}/connections")
        await _keep(seen.page, f"connections-{kind}")


def _name(s: Scene) -> None:
    """Call both upstreams as people know them."""
    for name, shown in (("first", "Acme Works"), ("second", "GitHub")):
        s.world.server._live.upstreams[name].display_name = shown  # type: ignore[misc]


async def _consent(s: Scene, page: Page) -> None:
    client = await s.world.register(redirect_uris=[SCHEME], client_name="Notes Assistant")
    await page.goto(s.world.authorize_url(client["client_id"], Pkce(), redirect_uri=SCHEME))


async def _connect(s: Scene, alice: Person, page: Page) -> None:
    """To the page that names the account that is about to be attached."""
    await page.goto(await s.link(alice.jwt))
    await page.get_by_role("button", name="Sign in").click()
    await logged_in(Watched(page))
    await page.get_by_role("button", name="Continue to").click()
    await logged_in(Watched(page))
    await page.get_by_role("heading", name="Connect alice at").wait_for()


async def _keep(page: Page, name: str) -> None:
    if name in NAMES:
        await page.screenshot(path=FOLDER / f"{name}.png", full_page=True)


if __name__ == "__main__":
    asyncio.run(draw())
