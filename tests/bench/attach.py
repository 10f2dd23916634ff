# ruff: noqa: TID251 - the sidecar gets this environment and its own variables
"""What Attach costs: the sidecar, nginx and a proxy of aiohttp before the same API over TLS.

A request of 1 kB, an answer of 4 kB, connections that are kept on both sides, the token in memory.
`wrk` is the load generator; it and the API have one core, what is measured has the other.
"""

import asyncio
import contextlib
import os
import shutil
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.pki import write_credential
from tests.bench.attach_streams import EventApi, measure_streams
from tests.bench.figures import Figure
from tests.bench.load import Load, LoadFailed, costing, drive, post
from tests.bench.open_loop import answer, opened
from tests.bench.wrk import free_ports, run_wrk, until_open
from tests.fakes.authserver import FakeAuthserver, answering, release
from tests.sidecar.harness import (
    JWT,
    SPIFFE_ID,
    Authorities,
    environment,
    fake_authserver,
)

CONNECTIONS: Final = 16
ROUNDS: Final = 5
SECONDS: Final = 3.0
RATE: Final = 500.0
PATH: Final = "/repos/octo/hello/issues"

_BODY: Final = b'{"title":"' + b"x" * 700 + b'"}'
_ITEMS: Final = ",".join(f'{{"number":{100_000 + number},"title":"x"}}' for number in range(125))
_ANSWER: Final = f'{{"items":[{_ITEMS}]}}'
_NGINX: Final = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
_COMMON: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  default_type application/json;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {server}
}}
"""
_API: Final = """server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key;
    location / {{ return 200 '{answer}'; }}
  }}"""
_PROXY: Final = """upstream api {{
    server 127.0.0.1:{api}; keepalive 64; keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass https://api; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host localhost; proxy_set_header Authorization "Bearer another";
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name localhost;
    }}
  }}"""


@dataclass(frozen=True)
class Door:
    """Something before the API: where it listens, which process it is, and how it is called."""

    port: int
    pid: int
    path: str


def request_bytes(door: Door) -> bytes:
    return post(door.path, _BODY, fields(door.port))


def fields(port: int) -> dict[str, str]:
    return {
        "Host": f"127.0.0.1:{port}",
        "Authorization": f"Bearer {JWT}",
        "Content-Type": "application/json",
        "Accept": "application/vnd.github+json",
        "User-Agent": "PyGithub/Python",
    }


async def measure() -> list[Figure]:
    """Rows of ours beside nginx and beside aiohttp; empty where there is no nginx."""
    if _NGINX is None:
        print("attach: nginx is not installed")
        return []
    with tempfile.TemporaryDirectory() as name:
        async with doors(Path(name)) as them:
            rounds = await _rounds(them)
            added = await _added(them)
        streams = await _streams(Path(name))
    return [*_compared(rounds, "nginx"), *_compared(rounds, "aiohttp"), *added, *streams]


@contextlib.asynccontextmanager
async def doors(folder: Path) -> AsyncIterator[dict[str, Door]]:
    """The API, and what stands before it; each is its own process."""
    authorities = Authorities.create()
    api, nginx, aiohttp_proxy, sidecar, ops = free_ports(5)
    write_credential(folder / "api", authorities.server.issue_server())
    ca = folder / "api-ca.pem"
    ca.write_bytes(authorities.server.certificate_pem)
    async with contextlib.AsyncExitStack() as stack:
        at_api = api_server(folder / "api", api)
        api_pid = await nginx_process(stack, folder / "api", at_api, api)
        at_proxy = _PROXY.format(port=nginx, api=api, ca=ca)
        nginx_pid = await nginx_process(stack, folder / "nginx", at_proxy, nginx)
        proxy = [sys.executable, "-m", "tests.bench.aiohttp_proxy", f"--port={aiohttp_proxy}",
                 f"--api=https://localhost:{api}", f"--ca={ca}"]  # fmt: skip
        proxy_pid = await _process(stack, proxy, aiohttp_proxy)
        authserver = await stack.enter_async_context(fake_authserver(folder, authorities))
        release_apis(authserver, api, authorities)
        sidecar_pid = await sidecar_process(
            stack, folder, authserver.url, sidecar, ops, authorities
        )
        _pin({api_pid: 1, nginx_pid: 0, proxy_pid: 0, sidecar_pid: 0})
        yield {
            "api": Door(api, api_pid, PATH),
            "nginx": Door(nginx, nginx_pid, PATH),
            "aiohttp": Door(aiohttp_proxy, proxy_pid, PATH),
            "ours": Door(sidecar, sidecar_pid, f"/upstream/github{PATH}"),
        }


def api_server(folder: Path, port: int) -> str:
    """nginx's configuration of an API that answers 4 kB to whatever token it gets."""
    return _API.format(port=port, folder=folder, answer=_ANSWER)


def release_apis(authserver: FakeAuthserver, api: int, authorities: Authorities) -> None:
    described = {
        "name": "rest", "base_url": f"https://localhost:{api}", "methods": ["GET", "POST"],
        "path_prefixes": ["/repos", "/user"], "default": True, "credential_headers": [],
        "credential_parameters": ["access_token"], "link_members": ["url", "next"],
        "search_answers": True, "ca": authorities.server.certificate_pem.decode(),
    }  # fmt: skip
    authserver.always(answering(lambda: release(apis=[described])))


async def _streams(folder: Path) -> list[Figure]:
    """A sidecar of its own, before an API of event streams in this process."""
    authorities, api = Authorities.create(), EventApi()
    port, sidecar, ops = free_ports(3)
    write_credential(folder / "events", authorities.server.issue_server())
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(api.listening(folder / "events", port))
        authserver = await stack.enter_async_context(fake_authserver(folder, authorities))
        release_apis(authserver, port, authorities)
        pid = await sidecar_process(stack, folder, authserver.url, sidecar, ops, authorities)
        direct = f"https://localhost:{port}{PATH}"
        through = f"http://127.0.0.1:{sidecar}/upstream/github{PATH}"
        return await measure_streams(api, direct, through, {"Authorization": f"Bearer {JWT}"}, pid)


async def sidecar_process(
    stack: contextlib.AsyncExitStack,
    folder: Path,
    authserver_url: str,
    port: int,
    ops: int,
    authorities: Authorities,
    more: Mapping[str, str] | None = None,
) -> int:
    write_credential(folder / "credential", authorities.workloads.issue_svid(SPIFFE_ID))
    variables = environment(
        folder, authserver_url, PORT=str(port), OPS_PORT=str(ops), LOG_LEVEL="error"
    )
    variables = os.environ | variables | dict(more or {})
    return await _process(stack, [sys.executable, "-m", "sidecar"], port, variables)


async def nginx_process(
    stack: contextlib.AsyncExitStack, folder: Path, server: str, port: int
) -> int:
    folder.mkdir(exist_ok=True)
    configuration = folder / "nginx.conf"
    configuration.write_text(_COMMON.format(folder=folder, server=server), "utf-8")
    assert _NGINX is not None
    command = [_NGINX, "-c", str(configuration), "-e", str(folder / "error.log")]
    return await _process(stack, command, port)


async def _process(
    stack: contextlib.AsyncExitStack,
    command: list[str],
    port: int,
    variables: Mapping[str, str] | None = None,
) -> int:
    process = await asyncio.create_subprocess_exec(*command, env=variables)

    async def end() -> None:
        process.terminate()
        await process.wait()

    stack.push_async_callback(end)
    await until_open(port)
    return process.pid


def _pin(cores: dict[int, int]) -> None:
    if (os.cpu_count() or 1) > 1:
        for pid, core in cores.items():
            os.sched_setaffinity(pid, {core})


async def _rounds(them: dict[str, Door]) -> dict[str, list[Load]]:
    """In turns, after a warm-up of each."""
    loads: dict[str, list[Load]] = {name: [] for name in them if name != "api"}
    for turn in range(ROUNDS + 1):
        for name, taken in loads.items():
            door = them[name]
            load = await costing(door.pid, _round(door, SECONDS if turn else 1.0))
            if turn:
                taken.append(load)
    return loads


async def _round(door: Door, seconds: float) -> Load:
    load = await run_wrk(
        door.port, "POST", door.path, fields(door.port), _BODY, CONNECTIONS, seconds
    )
    if load is not None:
        return load
    sending = request_bytes(door)
    return await drive("127.0.0.1", door.port, sending, connections=CONNECTIONS, seconds=seconds)


async def _added(them: dict[str, Door]) -> list[Figure]:
    """What a call waits longer than without us, at a steady rate; nginx's share beside it.

    The generator sleeps between two calls: the API has the same core, and would wait for it.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    rounds: dict[str, list[float]] = {"ours": [], "nginx": []}
    for _ in range(ROUNDS):
        direct = await _paced(them["api"], tls)
        for name, taken in rounds.items():
            taken.append(await _paced(them[name], None) - direct)
    ours, nginx = (statistics.median(rounds[name]) for name in ("ours", "nginx"))
    return [Figure(f"Attach at {RATE:.0f} requests/s: added (beside nginx)", "p50 ms", ours, nginx)]


async def _paced(door: Door, tls: ssl.SSLContext | None) -> float:
    """The median of calls one after the other, in milliseconds."""
    lines = await opened("127.0.0.1", door.port, [tls], CONNECTIONS)
    request, took = request_bytes(door), []
    for number in range(int(SECONDS * RATE)):
        begun = time.perf_counter()
        if not await answer(lines[number % CONNECTIONS], request):
            raise LoadFailed("an answer was not 200")
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(max(0.0, 1 / RATE - took[-1]))
    for line in lines:
        line.close()
    return statistics.median(took) * 1000


def _compared(rounds: dict[str, list[Load]], beside: str) -> list[Figure]:
    name = f"Attach, {CONNECTIONS} connections (beside {beside})"
    units: dict[str, Any] = {
        "requests/s": lambda load: load.per_second,
        "CPU us/request": lambda load: load.cpu,
        "p50 ms": lambda load: load.p50,
    }
    return [
        Figure(
            name,
            unit,
            statistics.median(map(read, rounds["ours"])),
            statistics.median(map(read, rounds[beside])),
        )
        for unit, read in units.items()
    ]
