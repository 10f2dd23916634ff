"""What a user pays: a whole MCP tool call without Tokenward, and through each door.

One MCP server (the Python SDK on uvicorn) whose tools read 4 kB from an API over TLS: with a token
of its own, with one that the sidecar hands out, and by Attach. One call at a time, by turns.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp

from demo.pki import write_credential
from tests.bench.attach import api_server, nginx_process, release_apis, sidecar_process
from tests.bench.figures import Figure
from tests.bench.load import LoadFailed, post
from tests.bench.open_loop import answer, opened
from tests.bench.world import pin
from tests.bench.wrk import free_ports, until_open
from tests.sidecar.harness import JWT, Authorities, fake_authserver

_CALLS: Final = 20
_ROUNDS: Final = 5


class _Way(NamedTuple):
    name: str
    tool: str
    through_gateway: bool = False


_WAYS: Final = (
    _Way("without Tokenward", "direct"),
    _Way("Hand-out", "hand_out"),
    _Way("Attach", "attach"),
    _Way("Gateway", "direct", through_gateway=True),
    _Way("Gateway and Attach", "attach", through_gateway=True),
)


async def measure() -> list[Figure]:
    """The median of each way, beside that of the call without Tokenward."""
    took: dict[_Way, list[float]] = {way: [] for way in _WAYS}
    with tempfile.TemporaryDirectory() as folder:
        async with _world(Path(folder)) as ports:
            for way in _WAYS:
                await _check(ports[way.through_gateway], way.tool)
            for turn in range(_ROUNDS + 1):
                for way, times in took.items():
                    found = await _round(ports[way.through_gateway], way.tool)
                    times += found if turn else []
    medians = {way: statistics.median(times) for way, times in took.items()}
    bare = medians[_WAYS[0]]
    return [
        Figure(f"a whole MCP tool call, {way.name} (beside without)", "p50 ms", each, bare)
        for way, each in medians.items()
    ]


@contextlib.asynccontextmanager
async def _world(folder: Path) -> AsyncIterator[dict[bool, int]]:
    """The ports of the MCP server, by whether the gateway is before it."""
    authorities = Authorities.create()
    api, server, sidecar, ops, gateway = free_ports(5)
    write_credential(folder / "api", authorities.server.issue_server())
    ca = folder / "api-ca.pem"
    ca.write_bytes(authorities.server.certificate_pem)
    async with contextlib.AsyncExitStack() as stack:
        await nginx_process(stack, folder / "api", api_server(folder / "api", api), api)
        authserver = await stack.enter_async_context(fake_authserver(folder, authorities))
        release_apis(authserver, api, authorities)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.tool_server", f"--port={server}", f"--ca={ca}",
            f"--api=https://localhost:{api}", f"--sidecar=http://127.0.0.1:{sidecar}",
        )  # fmt: skip
        stack.push_async_callback(process.wait)
        stack.callback(process.terminate)
        before = {
            "TOKENWARD_GATEWAY": f"{gateway}:{server}",
            "TOKENWARD_GATEWAY_HOST": "127.0.0.1",
        }
        await until_open(server, 60)
        pid = await sidecar_process(
            stack, folder, authserver.url, sidecar, ops, authorities, before
        )
        pin([pid, process.pid], core=0)
        yield {False: server, True: gateway}


async def _check(port: int, tool: str) -> None:
    """A tool that fails is answered 200, too."""
    url = f"http://127.0.0.1:{port}/mcp"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, headers=_headers(port), data=_body(tool)) as answered,
    ):
        result = (await answered.json())["result"]
        if result["isError"]:
            raise LoadFailed(json.dumps(result))


def _headers(port: int) -> dict[str, str]:
    return {
        "Host": f"127.0.0.1:{port}",
        "Authorization": f"Bearer {JWT}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-06-18",
    }


def _body(tool: str) -> bytes:
    params = {"name": tool, "arguments": {}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return json.dumps(call).encode()


async def _round(port: int, tool: str) -> list[float]:
    request = post("/mcp", _body(tool), _headers(port))
    took: list[float] = []
    [line] = await opened("127.0.0.1", port, [None], 1)
    for _ in range(_CALLS):
        begun = time.perf_counter()
        if not await answer(line, request):
            raise LoadFailed("an answer was not 200")
        took.append((time.perf_counter() - begun) * 1000)
    line.close()
    return took
