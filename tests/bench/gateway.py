"""`python -m tests.bench.gateway`: the gateway, nginx and a reverse proxy of aiohttp, in turns.

Each forwards a POST of 1 kB to the same server, which answers 4 kB, over kept connections. The
token is in the sidecar's memory. CPU time for each request is what a busy machine disturbs least;
the ratio of rates on one core is the ratio of CPU times. `wrk` is the load generator.
"""

import argparse
import asyncio
import contextlib
import itertools
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from tests.bench.gateway_streams import measure_streams
from tests.bench.http_servers import _NGINX, _found, _latency, running
from tests.bench.load import Load, costing
from tests.bench.open_loop import steady
from tests.bench.running_gateway import running_gateway
from tests.bench.wrk import free_ports
from tests.sidecar.harness import JWT

_BODY: Final = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"x":"%s"}}' % ("x" * 950)
_HALF: Final = "y" * 2048
_RATE: Final = 500.0

_NGINX_CONFIGURATION: Final = """
daemon off; master_process off; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; default_type application/json;
  client_body_temp_path {folder}/{name}b; proxy_temp_path {folder}/{name}p;
  fastcgi_temp_path {folder}/{name}f; uwsgi_temp_path {folder}/{name}u;
  scgi_temp_path {folder}/{name}s;
  {servers}
}}
"""
# nginx reads no parameter of 4 kB.
_APP: Final = """
  server {{ listen 127.0.0.1:{port};
    location / {{ set $half "{half}"; return 200 "$half$half"; }} }}
"""
_PROXY: Final = """
  upstream app {{ server 127.0.0.1:{app}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://app; proxy_http_version 1.1;
      proxy_set_header Connection ""; }} }}
"""
_LUA: Final = """
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer {jwt}"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
wrk.headers["User-Agent"] = "python-httpx/0.28"
wrk.body = '{body}'
"""


async def serve_aiohttp_proxy(port: int, app: int) -> None:
    """The plainest reverse proxy of aiohttp's server and client that streams both ways."""
    async with aiohttp.ClientSession(auto_decompress=False) as client:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            headers = {k: v for k, v in request.headers.items() if k not in ("Host", "Connection")}
            url = f"http://127.0.0.1:{app}{request.raw_path}"
            data = request.content if request.can_read_body else None
            async with client.request(request.method, url, headers=headers, data=data) as answer:
                response = web.StreamResponse(status=answer.status)
                response.content_length = answer.content_length
                response.content_type = answer.content_type
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response

        runner = web.ServerRunner(web.Server(forward, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


def _nginx(folder: Path, name: str, servers: str) -> list[str]:
    assert _NGINX is not None
    file = folder / f"{name}.conf"
    file.write_text(_NGINX_CONFIGURATION.format(folder=folder, name=name, servers=servers), "utf-8")
    return [_NGINX, "-c", str(file), "-e", str(folder / f"{name}.log")]


async def _round(folder: Path, port: int, connections: int, seconds: float) -> Load:
    wrk = shutil.which("wrk")
    assert wrk is not None, "install wrk"
    script = folder / "post.lua"
    script.write_text(_LUA.format(jwt=JWT, body=_BODY), "utf-8")
    process = await asyncio.create_subprocess_exec(
        wrk, "-t1", f"-c{connections}", f"-d{seconds:.0f}", "--latency", "-s", str(script),
        f"http://127.0.0.1:{port}/mcp", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told = (await process.communicate())[0].decode()
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    per_second = float(_found(r"Requests/sec: +([\d.]+)", told))
    requests = int(_found(r"(\d+) requests in", told))
    return Load(per_second, _latency("50%", told), _latency("99%", told), requests)


async def measure(rounds: int, seconds: float, connections: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app, first, second, third = free_ports(4)
        async with contextlib.AsyncExitStack() as stack:
            origin = _nginx(folder, "app", _APP.format(port=app, half=_HALF))
            await stack.enter_async_context(running(origin, app))
            proxy = _nginx(folder, "proxy", _PROXY.format(port=second, app=app))
            ours = [sys.executable, "-m", "tests.bench.gateway", "--serve", str(third), str(app)]
            gateway = running_gateway(folder, first, app)
            servers = {
                "gateway": (await stack.enter_async_context(gateway), first),
                "nginx": (await stack.enter_async_context(running(proxy, second)), second),
                "aiohttp": (await stack.enter_async_context(running(ours, third)), third),
            }
            loads: dict[str, list[Load]] = {server: [] for server in servers}
            for _ in range(rounds):
                for server, (pid, port) in servers.items():
                    driving = _round(folder, port, connections, seconds)
                    loads[server].append(await costing(pid, driving))
            ports = {"app": app} | {name: port for name, (_, port) in servers.items()}
            paced: dict[str, list[Load]] = {name: [] for name in ports}
            for _ in range(rounds):
                for name, port in ports.items():
                    paced[name].append(await _at_rate(port, seconds))
    _print(loads)
    _print_added(paced)


async def _at_rate(port: int, seconds: float) -> Load:
    """The same request, 500 times a second."""
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {JWT}\r\n"
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        f"User-Agent: python-httpx/0.28\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    )
    requests = itertools.repeat((head + _BODY).encode())
    return await steady("127.0.0.1", port, requests, rate=_RATE, seconds=seconds, lines=16)


def _print(loads: dict[str, list[Load]]) -> None:
    cpu = {name: statistics.median(one.cpu for one in of) for name, of in loads.items()}
    for server, rounds_of in loads.items():
        rate = statistics.median(load.per_second for load in rounds_of)
        p50 = statistics.median(load.p50 for load in rounds_of)
        print(
            f"{server:10} {rate:9.0f} requests/s  {cpu[server]:7.1f} us CPU each  p50 {p50:.3f} ms"
        )
    print(f"the gateway does {cpu['nginx'] / cpu['gateway']:.0%} of nginx's work in the same CPU")
    print(f"and {cpu['aiohttp'] / cpu['gateway']:.1f} times that of a proxy of aiohttp")


def _print_added(paced: dict[str, list[Load]]) -> None:
    p50 = {name: statistics.median(load.p50 for load in of) for name, of in paced.items()}
    direct = p50.pop("app")
    for name, through in p50.items():
        added = through - direct
        print(f"at {_RATE:.0f} requests/s {name} adds {added:.3f} ms (p50; {direct:.3f} without)")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway")
    parser.add_argument("--serve", type=int, nargs=2, metavar=("PORT", "APP"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        asyncio.run(serve_aiohttp_proxy(*options.serve))
    else:
        asyncio.run(measure(options.rounds, options.seconds, options.connections))
        asyncio.run(measure_streams())


if __name__ == "__main__":
    main()
