"""A real browser for the pages: Debian's Chromium, driven by Playwright.

Without one these tests cannot say anything, and they say so loudly: `make test` installs it where
it may, and on CI its absence is a failure.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from playwright.async_api import BrowserContext, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (
    "THE BROWSER TESTS DID NOT RUN: no Chromium on this machine. Install Debian's package"
    " `chromium` (as root: make chromium)"
)


def executable() -> str:
    """Chromium's path. Skips the test without one; on CI it fails."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    if os.environ.get("CI"):  # noqa: TID251 - where the test runs is no setting of ours
        pytest.fail(MISSING)
    pytest.skip(MISSING)


@asynccontextmanager
async def browser(
    *, width: int = 1280, colours: Literal["light", "dark"] = "light", scripts: bool = False
) -> AsyncIterator[BrowserContext]:
    """A fresh profile without scripts: no page of ours may need one. Only axe does."""
    path = executable()
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield await chromium.new_context(
                viewport={"width": width, "height": 800},
                color_scheme=colours,
                java_script_enabled=scripts,
            )
        finally:
            await chromium.close()
