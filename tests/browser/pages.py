"""Pages in a real browser, with screenshots."""

from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page

ARTEFACTS = Path(__file__).resolve().parent.parent.parent / "artefacts"


SCHEME = "cursor://anysphere.cursor-mcp/oauth/callback"


class Watched:
    """A page, and everything that a browser complained about or fetched for it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self._complain)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _complain(self, message: ConsoleMessage) -> None:
        if not message.location.get("url", "").endswith("/favicon.ico"):  # asked for unasked
            self.complaints.append(message.text)


async def watched(context: BrowserContext) -> Watched:
    return Watched(await context.new_page())


async def logged_in(watched: Watched) -> None:
    page = watched.page
    await page.get_by_label("User").fill("alice")
    await page.get_by_label("Password").fill("rabbit")
    await page.get_by_role("button", name="Sign in").click()


async def keep(page: Page, name: str) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)
