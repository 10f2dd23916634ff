"""`python -m tests.bench.gateway`: the gateway, nginx and a reverse proxy of aiohttp, in turns.

Each forwards a POST of 1 kB to the same server, which answers 4 kB, over kept connections. The
token is in the sidecar's memory. CPU time for each request is what a busy machine disturbs least;
the ratio of rates on one core is the ratio of CPU times. `wrk` is the load generator.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from demo.pki import write_credential
from tests.bench.http_servers import _NGINX, _found, _free_ports, _latency, _running
from tests.bench.load import Load, costing
from tests.sidecar.gateway.harness import by_user, users
from tests.sidecar.harness import JWT, SPIFFE_ID, Authorities, environment, fake_authserver

_BODY: Final = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"x":"%s"}}' % ("x" * 950)
_HALF: Final = "y" * 2048

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


@contextlib.asynccontextmanager
async def _gateway(folder: Path, port: int, app: int) -> AsyncIterator[int]:
    """The process id of a sidecar with a gateway, whose authserver accepts everybody."""
    authorities = Authorities.create()
    write_credential(folder / "credential", authorities.workloads.issue_svid(SPIFFE_ID))
    async with fake_authserver(folder, authorities) as authserver:
        authserver.always(by_user)
        variables = environment(folder, authserver.url) | {
            "TOKENWARD_GATEWAY": f"{port}:{app}",
            "TOKENWARD_GATEWAY_HOST": "127.0.0.1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", env=variables, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await _until_listening(port)
            yield process.pid
        finally:
            process.terminate()
            await process.wait()


async def _until_listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


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
        app, first, second, third = _free_ports(4)
        async with contextlib.AsyncExitStack() as stack:
            origin = _nginx(folder, "app", _APP.format(port=app, half=_HALF))
            await stack.enter_async_context(_running(origin, app))
            proxy = _nginx(folder, "proxy", _PROXY.format(port=second, app=app))
            ours = [sys.executable, "-m", "tests.bench.gateway", "--serve", str(third), str(app)]
            servers = {
                "gateway": (await stack.enter_async_context(_gateway(folder, first, app)), first),
                "nginx": (await stack.enter_async_context(_running(proxy, second)), second),
                "aiohttp": (await stack.enter_async_context(_running(ours, third)), third),
            }
            loads: dict[str, list[Load]] = {server: [] for server in servers}
            for _ in range(rounds):
                for server, (pid, port) in servers.items():
                    driving = _round(folder, port, connections, seconds)
                    loads[server].append(await costing(pid, driving))
    _print(loads)


# Streams.

_STREAMS: Final = 200
_EVENTS: Final = 400


async def _feed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An app that sends events with the time in them, or none to an idle stream."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with contextlib.suppress(ConnectionError):
        while b"GET /idle" not in head:
            event = b"data: %d\n\n" % time.perf_counter_ns()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.005)
        await reader.read()
    writer.close()


async def _delays(port: int) -> list[float]:
    """How long each event was on its way, in milliseconds."""
    headers = {"Authorization": f"Bearer {JWT}"}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/events", headers=headers) as stream,
    ):
        delays: list[float] = []
        while len(delays) < _EVENTS:
            event = await stream.content.readuntil(b"\n\n")
            delays.append((time.perf_counter_ns() - int(event[6:])) / 1e6)
        return delays


def _private_kilobytes(pid: int) -> int:
    found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found is not None
    return int(found[1])


async def _idle(stack: contextlib.AsyncExitStack, port: int) -> None:
    http = await stack.enter_async_context(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    )
    jwts = list(users("a", "b", "c", "d").values())
    for number in range(_STREAMS):
        headers = {"Authorization": f"Bearer {jwts[number % len(jwts)]}"}
        request = http.get(f"http://127.0.0.1:{port}/idle", headers=headers)
        await stack.enter_async_context(request)


async def measure_streams() -> None:
    """What an event and an idle stream cost."""
    app, port = _free_ports(2)
    with tempfile.TemporaryDirectory() as name:
        async with (
            await asyncio.start_server(_feed, "127.0.0.1", app),
            _gateway(Path(name), port, app) as pid,
        ):
            delays: dict[int, list[float]] = {app: [], port: []}
            for _ in range(4):
                for at, told in delays.items():
                    told += await _delays(at)
            direct, through = (statistics.median(delays[at]) for at in (app, port))
            before = _private_kilobytes(pid)
            async with contextlib.AsyncExitStack() as stack:
                await _idle(stack, port)
                each = (_private_kilobytes(pid) - before) / _STREAMS
    print(f"an event comes {through - direct:.3f} ms later (p50; {direct:.3f} ms without us)")
    print(f"an idle stream takes {each:.1f} kB of private memory")


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
