"""Drives a client process of any library: its calls, and the browser it opens."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from demo.browser import Browser
from demo.forms import parse_forms
from tests.interop.client import REDIRECT_URI
from tests.interop.environments import newer_node, node_packages, python_of
from tests.support.deployment import log_in

HERE = Path(__file__).resolve().parent

CLIENTS = (
    "official_1",
    "official_2",
    "fastmcp",
    "typescript_1",
    "typescript_2",
    "mcp_remote",
    "inspector",
)

_CALL_SECONDS = 90.0


class CallFailed(Exception):
    """The client reported an error; its text."""


@dataclass
class ClientProcess:
    """A client whose user is alice, and who is always at the browser.

    `decide` gives her answer to our page, `asked` are those pages as texts. A `browser` keeps its
    cookies from one sign-in to the next; without it each sign-in has a new one.
    """

    process: asyncio.subprocess.Process
    sign_ins: int = 0
    decide: Callable[[str], str] = lambda _: "allow"
    asked: list[str] = field(default_factory=list)
    browser: Browser | None = None

    async def whoami(self) -> Any:
        """What the tool answered; raises CallFailed. It is whoami unless another was named."""
        return await self._asked("CALL")

    async def expire(self) -> None:
        """From now on the client knows its access token to be over."""
        await self._asked("EXPIRE")

    async def _asked(self, what: str) -> Any:
        self._tell(what)
        assert self.process.stdout is not None
        async with asyncio.timeout(_CALL_SECONDS):
            async for line in self.process.stdout:
                word, _, rest = line.decode().strip().partition(" ")
                match word:
                    case "OPEN":
                        await self._browse(rest)
                    case "RESULT":
                        return json.loads(rest)
                    case "ERROR":
                        raise CallFailed(json.loads(rest))
        raise CallFailed("the client has ended")

    async def _browse(self, url: str) -> None:
        """Allow, sign in as alice if asked, and end where the client listens.

        Where the authserver cannot be reached, its user closes the browser.
        """
        if self.browser is not None:
            await self._sign_in(self.browser, url)
            return
        async with Browser(leave_at=REDIRECT_URI) as browser:
            await self._sign_in(browser, url)

    async def _sign_in(self, browser: Browser, url: str) -> None:
        try:
            asked = await browser.open(url)
        except aiohttp.ClientConnectionError:
            self._tell(f"BACK {REDIRECT_URI}?error=closed")
            return
        self.sign_ins += 1
        self.asked.append(asked.text)
        await _until_it_listens(url)
        back = await browser.submit(asked, press=("decision", self.decide(asked.text)))
        if any("password" in form.fields for form in parse_forms(back.text)):
            back = await log_in(browser, back, "alice")
        if back.status is None:
            self._tell(f"BACK {back.url}")

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())


async def _until_it_listens(authorization_url: str) -> None:
    """FastMCP opens the browser first and its callback port then; a person is slower than we."""
    target = urlsplit(dict(parse_qsl(urlsplit(authorization_url).query)).get("redirect_uri", ""))
    if target.hostname != "localhost":
        return
    async with asyncio.timeout(_CALL_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection(target.hostname, target.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@asynccontextmanager
async def client_process(
    name: str, url: str, folder: Path, *tool: str, shared: Path | None = None
) -> AsyncIterator[ClientProcess]:
    """Start the client for the MCP server at `url`; what it stores, it stores in `folder`.

    `tool`: another tool than whoami, and its arguments in JSON. What was stored in `shared`, an
    earlier process may have stored.
    """
    command = [*(await asyncio.to_thread(_command, name, url)), *tool]
    with (folder / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=_environment(shared or folder) | ({"CLIENT_STORE": str(shared)} if shared else {}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        yield ClientProcess(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _command(name: str, url: str) -> list[str | Path]:
    match name:
        case "official_2":
            return [sys.executable, HERE / "client.py", name, url]
        case "official_1" | "fastmcp":
            return [python_of(name), HERE / "client.py", name, url]
        case "mcp_remote":
            proxy = node_packages() / "node_modules/mcp-remote/dist/proxy.js"
            return ["node", HERE / "stdio_bridge.mjs", proxy, url]
        case "inspector":
            packages = node_packages("node-inspector") / "node_modules"
            cli = packages / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
            return ["node", HERE / "inspector_bridge.mjs", newer_node(packages), cli, url]
        case _:
            # A program finds packages from where it stands.
            script = shutil.copy(HERE / "client.mjs", node_packages())
            return ["node", script, name, url]


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251 - where the runtimes are
        "HOME": str(folder),
        "MCP_REMOTE_CONFIG_DIR": str(folder / "mcp-remote"),
        "PYTHONUNBUFFERED": "1",
    }
