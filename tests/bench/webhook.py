"""What an admission costs, next to a bare aiohttp TLS handler in the same run.

`python -m tests.bench.webhook` prints the table. Server and client are processes of their own;
both servers have the same loop, TLS set-up and requests. The webhook logs each decision, to a file:
the reader of a pipe would take its turns on the two cores.
"""

import asyncio
import json
import os
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, cast

import uvloop
import yaml
from aiohttp import web
from prometheus_client import CollectorRegistry

from chassis import logs
from chassis.http1.listener import Listener
from chassis.probes import Readiness
from chassis.tls import contexts
from tests.support.server_certificates import Authority
from tests.webhook.pods import raw_settings, recorded, settings
from webhook import listener as app
from webhook.metrics import Metrics

SECONDS = 0.3
ROUNDS = 15
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Load:
    """What one client saw, and what it cost the server."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def review(size: int, workload: str = "github-mcp") -> bytes:
    """A recorded review grown to about `size` bytes as real ones grow: by managedFields."""
    found = recorded("pod-create-replicaset")
    metadata = found["request"]["object"]["metadata"]
    metadata["labels"]["app.kubernetes.io/name"] = workload
    metadata["annotations"]["tokenward.dev/resource"] = f"https://{workload}.example.com/mcp"
    fields: dict[str, Any] = {}
    manager = {"manager": "m", "operation": "Update", "fieldsV1": {"f:spec": fields}}
    metadata["managedFields"].append(manager)
    missing = size - len(json.dumps(found))
    for at in range(max(missing, 0) // 60):
        fields[f'k:{{"name":"container-{at:06d}"}}'] = {".": {}, "f:image": {}}
    return json.dumps(found, separators=(",", ":")).encode()


def in_process(size: int, rounds: int = 2000) -> float:
    """Milliseconds of CPU for one review from bytes to bytes; the log is written, to nowhere."""
    metrics, under = Metrics(CollectorRegistry()), settings()
    arrived = app._Arrived(review(size), False, 0.0)
    with Path(os.devnull).open("w") as nowhere, _stderr(nowhere):
        logs.configure("bench")
        app._answered(app._decided(arrived, lambda: under, metrics), metrics)
        best = float("inf")
        for _ in range(5):
            started = process_time()
            for _ in range(rounds // 5):
                app._answered(app._decided(arrived, lambda: under, metrics), metrics)
            best = min(best, (process_time() - started) / (rounds // 5))
    return best * 1000


@contextmanager
def _stderr(stream: Any) -> Iterator[None]:
    before, sys.stderr = sys.stderr, stream
    try:
        yield
    finally:
        sys.stderr = before


async def _serve(which: str, folder: Path) -> None:
    async def bare(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(content_type="application/json")

    logs.configure("bench")
    readiness, under = Readiness(), settings()
    pair = contexts.KeyPair(folder / "tls.crt", folder / "tls.key")
    tls = contexts.server_context(pair)
    if which == "bare":
        runner = web.ServerRunner(web.Server(bare, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
    else:
        server = app.server(lambda: under, readiness, Metrics(CollectorRegistry()))
        port = (await Listener("webhook", "127.0.0.1", 0, server, tls=tls).bind(0.0)).port
    print(port, flush=True)
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Server:
    """A server in a process of its own."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """CPU time so far: the figure that other processes on the machine disturb least."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text("ascii").split()[0]) / 1e9


@contextmanager
def served(
    which: str, folder: Path, tree: Path = _ROOT, python: str = sys.executable
) -> Iterator[Server]:
    """A server of a tree, alone in its process: this module of every build serves it."""
    with (folder / f"{tree.name}-{which}.log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "tests.bench.webhook", "serve", which, str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=tree,
        )
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline()), process.pid)
    finally:
        process.kill()
        process.communicate()


def drive(server: Server, bodies: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Closed loop: every connection sends the next review when its last answer is whole.

    All of it takes half the time a bare server needs for the same, so it is not what is measured.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    requests, opened = cycle(list(map(_request, bodies))), []
    for _ in range(connections):
        raw = socket.create_connection(("127.0.0.1", server.port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.append(trusting.wrap_socket(raw))
    times, cpu, started = [], server.cpu_seconds(), perf_counter()
    with selectors.DefaultSelector() as answered:
        sent = {}
        for connection in opened:
            answered.register(connection, selectors.EVENT_READ)
            sent[connection] = perf_counter()
            connection.sendall(next(requests))
        while sent:
            for key, _ in answered.select():
                connection = cast(ssl.SSLSocket, key.fileobj)
                _read_answer(connection)
                now = perf_counter()
                times.append(now - sent.pop(connection))
                if now - started < seconds:
                    sent[connection] = now
                    connection.sendall(next(requests))
    elapsed, cpu = perf_counter() - started, server.cpu_seconds() - cpu
    for connection in opened:
        connection.close()
    times.sort()
    return Load(
        len(times) / elapsed,
        cpu / len(times) * 1e6,
        times[len(times) // 2] * 1000,
        times[int(len(times) * 0.99)] * 1000,
    )


def _request(body: bytes) -> bytes:
    return (
        "POST /mutate?timeout=5s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _read_answer(connection: ssl.SSLSocket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0]
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(rest) < length:
        rest += connection.recv(65536)


def start(folder: Path) -> tuple[float, float]:
    """Seconds until the real process is ready, and its resident megabytes then."""
    (folder / "ca.pem").write_text(Authority().pem, "ascii")
    listener = {
        "host": "127.0.0.1",
        "port": 0,
        "certFile": str(folder / "tls.crt"),
        "keyFile": str(folder / "tls.key"),
    }
    config = folder / "webhook.yaml"
    raw = raw_settings(
        authserver={"url": "https://a.svc:8443", "caFile": "ca.pem"},
        listeners={"webhook": listener, "ops": {"host": "127.0.0.1", "port": 0}},
    )
    config.write_text(yaml.safe_dump(raw), "utf-8")
    started = perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "webhook", "--config", str(config)],
        stderr=subprocess.PIPE,
        cwd=_ROOT,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if json.loads(line)["event"] == "ready":
                break
        elapsed = perf_counter() - started
        status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return elapsed, int(resident.split()[1]) / 1024
    finally:
        process.kill()
        process.communicate()


def _compared(
    floor: Server, server: Server, bodies: Sequence[bytes], connections: int
) -> tuple[str, float]:
    """The line of one kind of review, and ours per second.

    Short rounds alternate and medians count: the machine is rarely ours alone.
    """
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(drive(floor, bodies, connections, SECONDS))
        ours.append(drive(server, bodies, connections, SECONDS))
    pairs = list(zip(ours, bare, strict=True))
    ratios = [mine.per_second / its.per_second for mine, its in pairs]
    of_cpu = [its.cpu_us / mine.cpu_us for mine, its in pairs]
    per_second = median(load.per_second for load in ours)
    return (
        f"{per_second:6.0f}/s "
        f"(p50 {median(load.p50_ms for load in ours):.2f} ms, "
        f"p99 {median(load.p99_ms for load in ours):.2f} ms), "
        f"bare {median(load.per_second for load in bare):6.0f}/s, ratio {median(ratios):.2f}; "
        f"CPU {median(load.cpu_us for load in ours):.0f} us, "
        f"bare {median(load.cpu_us for load in bare):.0f} us, ratio {median(of_cpu):.2f}"
    ), per_second


def main() -> list[str]:
    """Measure everything; the lines of the table."""
    lines = [f"in process, 20 kB review: {in_process(20_000):.3f} ms (at most 0.25)"]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        Authority().issue(folder)
        ready, resident = min(start(folder) for _ in range(3))
        lines.append(f"ready after {ready * 1000:.0f} ms, {resident:.0f} MB resident")
        with served("bare", folder) as floor, served("webhook", folder) as server:
            per_second = {}
            for size, connections in ((8_000, 16), (20_000, 1), (20_000, 16), (64_000, 16)):
                line, per_second[size] = _compared(floor, server, [review(size)], connections)
                lines.append(f"{size // 1000:3d} kB x {connections:2d}: {line}")
            line, _ = _compared(floor, server, [review(20_000, f"mcp-{n}") for n in range(500)], 16)
            lines.append(f" 20 kB x 16, each of another workload: {line}")
            large = drive(server, [review(1024 * 1024)], 1, seconds=2.0)
        lines.append(f"1 MiB x 1: p50 {large.p50_ms:.1f} ms, p99 {large.p99_ms:.1f} ms (under 25)")
        factor = per_second[8_000] / per_second[64_000]
        lines.append(f"8 kB over 64 kB at 16 connections: factor {factor:.1f} (at most 3)")
    return lines


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(_serve(sys.argv[2], Path(sys.argv[3])))
    else:
        print("\n".join(main()))
