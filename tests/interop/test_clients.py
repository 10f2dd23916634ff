"""Clients that people use complete the main journey, each in its own process and environment.

The official SDK of version 2 walks it in `make demo` and in tests/demo.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from demo.browser import Browser
from demo.layout import plan
from demo.material import write_material
from demo.processes import Processes
from demo.stack import start
from demo.upstream import USERS
from tests.interop.client import REDIRECT_URI
from tests.interop.environments import python_of
from tests.support.deployment import log_in

CLIENT = Path(__file__).resolve().parent / "client.py"

pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize("name", ["official_1", "fastmcp"])
async def test_a_client_completes_the_journey(tmp_path: Path, name: str) -> None:
    python = await asyncio.to_thread(python_of, name)
    layout = plan(tmp_path)
    write_material(layout)
    async with Processes(tmp_path) as processes:
        await start(layout, processes)
        account = await _journey(python, name, layout.servers[0].resource)
    user = USERS["alice"]
    assert account == {"login": user.login, "id": user.id, "name": user.name}


async def _journey(python: Path, name: str, url: str) -> dict[str, Any]:
    """Run the client, be its user's browser, and return what whoami told it."""
    client = await asyncio.create_subprocess_exec(
        python,
        CLIENT,
        name,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        async with asyncio.timeout(120):
            async for line in client.stdout:
                word, _, rest = line.decode().strip().partition(" ")
                if word == "OPEN":
                    client.stdin.write(f"{await _browse(rest)}\n".encode())
                if word == "RESULT":
                    found = json.loads(rest)
                    assert isinstance(found, dict)
                    return found
    finally:
        if client.returncode is None:
            client.kill()
        _, said = await client.communicate()
    pytest.fail(said.decode(errors="replace")[-2000:])


async def _browse(url: str) -> str:
    """Allow, sign in as alice, and go where the client is sent; that address."""
    async with Browser(leave_at=REDIRECT_URI) as browser:
        page = await browser.submit(await browser.open(url), press=("decision", "allow"))
        return (await log_in(browser, page, "alice")).url
