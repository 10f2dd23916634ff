"""`python -m tests.bench.http_servers`: chassis.http1, aiohttp and nginx, the same answer in turns.

The answer is like a cached token: a POST with a JWT in, 600 bytes of JSON out. CPU time for each
request is what a busy machine disturbs least. With `wrk` installed it is the load generator; ours
is slower than two of the three servers. With --varied no head is like the one before it.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Final

from chassis.http1.request import Request
from chassis.http1.response import Response, ResponseHead
from chassis.http1.server import Server
from tests.bench.load import Load, costing, drive, post
from tests.bench.wrk import free_ports, until_open

_ANSWER: Final = b'{"access_token":"' + b"x" * 560 + b'","expires_in":900}'
_REQUEST_FIELDS: Final = {
    "Host": "127.0.0.1",
    "Authorization": f"Bearer {'a' * 687}",
    "X-Tokenward": "1",
    "Content-Type": "application/json",
    "User-Agent": "python-httpx/0.28",
    "Accept": "*/*",
}
_HEAD: Final = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
_NGINX: Final = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
_NGINX_CONFIGURATION: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; default_type application/json;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{answer}'; }} }}
}}
"""
_LUA: Final = 'wrk.method="POST"\nwrk.body="{{}}"\n{fields}\n'
_LUA_VARIED: Final = """
count = 0
request = function()
  count = count + 1
  wrk.headers["Authorization"] = "Bearer " .. string.format("%08d", count) .. string.rep("a", 679)
  return wrk.format()
end
"""


async def _serve(port: int) -> None:
    head = ResponseHead(200, _HEAD)

    def handle(_: Request) -> Response:
        return Response(head, _ANSWER)

    await asyncio.get_running_loop().create_server(Server(handle), "127.0.0.1", port)
    await asyncio.Event().wait()


def _commands(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Each server's port and command."""
    first, second, third = free_ports(3)
    body = folder / "answer"
    body.write_bytes(_ANSWER)
    ours = [sys.executable, "-m", "tests.bench.http_servers", "--serve"]
    bare = [sys.executable, "-m", "tests.bench.bare", "--body", str(body), "--port"]
    commands = {
        "chassis.http1": (first, [*ours, str(first)]),
        "aiohttp": (second, [*bare, str(second)]),
    }
    if command := nginx_command(folder, third):
        commands["nginx"] = (third, command)
    return commands


def nginx_command(folder: Path, port: int) -> list[str]:
    """Starts an nginx that gives the same answer to everything; empty where there is none."""
    if _NGINX is None:
        return []
    configuration = folder / "nginx.conf"
    text = _NGINX_CONFIGURATION.format(folder=folder, port=port, answer=_ANSWER.decode())
    configuration.write_text(text, "utf-8")
    return [_NGINX, "-c", str(configuration), "-e", str(folder / "error.log")]


@contextlib.asynccontextmanager
async def running(command: list[str], port: int) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await until_open(port)
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def _round(
    folder: Path, port: int, connections: int, seconds: float, *, varied: bool
) -> Load:
    wrk = shutil.which("wrk")
    if wrk is None:
        calls = _varied() if varied else post("/v1/token", b"{}", _REQUEST_FIELDS)
        return await drive("127.0.0.1", port, calls, connections=connections, seconds=seconds)
    script = folder / "post.lua"
    fields = "\n".join(
        f'wrk.headers["{name}"]="{value}"' for name, value in _REQUEST_FIELDS.items()
    )
    text = _LUA.format(fields=fields) + (_LUA_VARIED if varied else "")
    script.write_text(text, "utf-8")
    process = await asyncio.create_subprocess_exec(
        wrk, "-t1", f"-c{connections}", f"-d{seconds:.0f}", "--latency", "-s", str(script),
        f"http://127.0.0.1:{port}/v1/token", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told = (await process.communicate())[0].decode()
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    requests = int(_found(r"(\d+) requests in", told))
    per_second = float(_found(r"Requests/sec: +([\d.]+)", told))
    return Load(per_second, _latency("50%", told), _latency("99%", told), requests)


def _varied() -> Iterator[bytes]:
    for number in count():
        jwt = f"Bearer {number:08d}{'a' * 679}"
        yield post("/v1/token", b"{}", _REQUEST_FIELDS | {"Authorization": jwt})


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


def _latency(quantile: str, told: str) -> float:
    number, unit = re.findall(rf"{quantile} +([\d.]+)(us|ms|s)\b", told)[0]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


async def measure(rounds: int, seconds: float, connections: int, *, varied: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            pids = {}
            for server, (port, command) in _commands(folder).items():
                pid = await stack.enter_async_context(running(command, port))
                pids[server] = (pid, port)
            loads: dict[str, list[Load]] = {server: [] for server in pids}
            for _ in range(rounds):
                for server, (pid, at) in pids.items():
                    driving = _round(folder, at, connections, seconds, varied=varied)
                    loads[server].append(await costing(pid, driving))
    for server, rounds_of in loads.items():
        rate = statistics.median(load.per_second for load in rounds_of)
        cpu = statistics.median(load.cpu for load in rounds_of)
        p50 = statistics.median(load.p50 for load in rounds_of)
        print(f"{server:14} {rate:9.0f} requests/s  {cpu:6.1f} us CPU each  p50 {p50:.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.http_servers")
    parser.add_argument("--serve", type=int, metavar="PORT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--varied", action="store_true")
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(_serve(options.serve))
    else:
        measuring = measure(
            options.rounds, options.seconds, options.connections, varied=options.varied
        )
        asyncio.run(measuring)


if __name__ == "__main__":
    main()
