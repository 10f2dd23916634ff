"""Starts a server program of servers/ that prints its port, with our packages as installed."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.interop.environments import node_site, python_of, python_site

PYTHON_SERVERS = ("fastmcp", "official_1", "official_2")
TYPESCRIPT_SERVERS = ("typescript_1", "typescript_2")

_FOLDER = Path(__file__).resolve().parent / "servers"


@asynccontextmanager
async def mcp_server(kind: str, tokenward_url: str) -> AsyncIterator[str]:
    """The URL of an MCP server of this kind, beside that sidecar."""
    program = "server.py" if kind in PYTHON_SERVERS else "mcp_server.mjs"
    async with _served(program, kind, tokenward_url=tokenward_url) as url:
        yield f"{url}/mcp"


@asynccontextmanager
async def plain_server(kind: str, options: str, tokenward_url: str) -> AsyncIterator[str]:
    """The URL of `plain.cjs` as `http`, `express4` or `express5`; `options` in JSON."""
    async with _served("plain.cjs", kind, options, tokenward_url=tokenward_url) as url:
        yield url


@asynccontextmanager
async def _served(program: str, *arguments: str, tokenward_url: str) -> AsyncIterator[str]:
    command, site = await asyncio.to_thread(_command, program, arguments[0])
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - where the runtimes are
        "TOKENWARD_URL": tokenward_url,
        "HTTP_PROXY": "http://127.0.0.1:1",  # nothing of ours may go there
        "http_proxy": "http://127.0.0.1:1",
        "NODE_USE_ENV_PROXY": "1",
        "PYTHONPATH": str(site),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def _command(program: str, kind: str) -> tuple[list[str | Path], Path]:
    if kind in PYTHON_SERVERS:
        python = Path(sys.executable) if kind == "official_2" else python_of(kind)
        return [python, _FOLDER / program], python_site()
    # A program finds packages from where it stands.
    return ["node", shutil.copy(_FOLDER / program, node_site())], Path()
