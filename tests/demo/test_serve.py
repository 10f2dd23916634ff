"""`python -m demo --serve`: the whole product as real processes, met through a browser."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from demo.browser import Browser, Page

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def demo() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The demo once it is up, and what it printed until then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "demo", "--serve", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        printed = (await process.stdout.readuntil(b"Ctrl-C ends everything.\n")).decode()
        yield process, printed
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


async def sign_in(browser: Browser, page_url: str, server: str) -> Page:
    consent = await browser.open(f"{page_url}sign-in/{server}")
    login = await browser.submit(consent, press=("decision", "allow"))
    return await browser.submit(login, {"username": "bob", "password": "humbug"})


async def test_a_visitor_signs_in_and_after_ctrl_c_nothing_is_left() -> None:
    async with demo() as (process, printed):
        urls = re.findall(r"http://127\.0\.0\.1:\d+/?", printed)
        folder = Path(re.findall(r"logs +(\S+)", printed)[0])
        async with Browser() as browser:
            page = await sign_in(browser, urls[0], "notes")
            denied = await browser.open(f"{urls[0]}sign-in/other")
            refused = await browser.submit(denied, press=("decision", "deny"))
        assert folder.is_dir()
        hosts = listening(folder)
        process.send_signal(signal.SIGINT)
        await process.communicate()

    assert "&quot;login&quot;: &quot;bob&quot;" in page.text
    assert "access_denied" in refused.text
    assert hosts == {"127.0.0.1"}
    assert process.returncode == 0
    assert not folder.exists()
    assert [url for url in set(urls) if await answers(url)] == []


def listening(folder: Path) -> set[str]:
    """The addresses of every listener of ours, health and metrics included."""
    lines = [line for log in folder.rglob("*.log") for line in log.read_text().splitlines()]
    events = [json.loads(line) for line in lines if line.startswith('{"time"')]
    hosts = [event["host"] for event in events if event["event"] == "listening"]
    assert len(hosts) >= 7  # three of the authserver, two of each sidecar
    return set(hosts)


async def answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(url):
            return True
    except aiohttp.ClientConnectionError:
        return False
