"""MCP servers from the registries, as they are: none of them knows anything of OAuth."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp

from tests.interop.environments import node_packages, python_of

# A tool of each, its arguments in JSON, and what its answer holds.
TOOLS: Final = {
    "mcp_proxy": ("convert_time", '{"source_timezone": "UTC", "time": "12:00", "target_timezone": '
                  '"Asia/Tokyo"}', "21:00"),
    "everything": ("echo", '{"message": "unmodified"}', "unmodified"),
}  # fmt: skip
SERVERS: Final = tuple(TOOLS)


@asynccontextmanager
async def unmodified_server(kind: str, port: int, log: Path) -> AsyncIterator[None]:
    """Run the server at `port` of loopback until the block ends."""
    command = await asyncio.to_thread(_command, kind, port)
    environment = {"PATH": os.environ["PATH"], "PORT": str(port), "HOME": str(log.parent)}  # noqa: TID251 - where the runtimes are
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=output, stderr=output
        )
    try:
        await _answers(port, process)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _command(kind: str, port: int) -> list[str | Path]:
    if kind == "everything":
        packages = node_packages() / "node_modules/@modelcontextprotocol/server-everything"
        return ["node", packages / "dist/index.js", "streamableHttp"]
    scripts = python_of("unmodified").parent
    return [scripts / "mcp-proxy", "--port", str(port), scripts / "mcp-server-time"]


async def _answers(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as http:
        while True:
            with suppress(aiohttp.ClientError):
                async with http.get(f"http://127.0.0.1:{port}/"):
                    return
            assert process.returncode is None, "the server has ended"
            await asyncio.sleep(0.05)
