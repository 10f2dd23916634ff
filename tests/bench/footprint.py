"""How soon is the sidecar ready, and what does it weigh, beside a bare aiohttp process?

The bare process holds the same parts: an aiohttp server and a client session with an mTLS
context. Every run is a fresh process, idle when it is weighed.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from demo.layout import HOST, Layout, plan
from demo.material import write_material
from demo.stack import sidecar_environment
from tests.bench.figures import Figure

_RUNS: Final = 9
_PATIENCE_SECONDS: Final = 20.0

Run = tuple[float, float]  # milliseconds to ready, megabytes resident


async def measure() -> list[Figure]:
    return await asyncio.to_thread(_measure)


def _measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        layout = plan(Path(folder))
        write_material(layout)
        body = Path(folder) / "body.json"
        body.write_bytes(b"{}")
        server = layout.servers[0]
        bare = _bare_arguments(layout, body)
        runs: list[tuple[Run, Run, Run]] = []
        for _ in range(_RUNS):
            environment = sidecar_environment(layout, server)
            ours = _run(["sidecar"], environment, server.ops_port, "/readyz")
            plain = _run(bare, {}, layout.page_port, "/")
            lean = _run(bare, {"BARE_WITHOUT_SYSTEM_CAS": "1"}, layout.page_port, "/")
            runs.append((ours, plain, lean))
        return [*_figures(runs, 1, ""), *_figures(runs, 2, ", bare without system CAs too")]


def _figures(runs: list[tuple[Run, Run, Run]], yardstick: int, note: str) -> list[Figure]:
    def median(process: int, part: int) -> float:
        return statistics.median(run[process][part] for run in runs)

    return [
        Figure(f"sidecar, exec to ready{note}", "ms", median(0, 0), median(yardstick, 0)),
        Figure(f"sidecar, idle RSS{note}", "MB", median(0, 1), median(yardstick, 1)),
    ]


def _bare_arguments(layout: Layout, body: Path) -> list[str]:
    credential = layout.servers[0].credential
    return [
        "tests.bench.bare",
        f"--port={layout.page_port}",
        f"--body={body}",
        f"--client={credential}",
    ]


def _run(arguments: list[str], environment: dict[str, str], port: int, path: str) -> Run:
    """Milliseconds from exec to the first 200, and megabytes resident then."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={"PATH": os.environ["PATH"], **environment},  # noqa: TID251 - for the interpreter
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_200(port, path, lambda: process.poll() is None)
        ready = (time.perf_counter() - begun) * 1000
        time.sleep(0.3)
        return ready, resident_megabytes(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE_SECONDS)


def _wait_for_200(port: int, path: str, alive: Callable[[], bool]) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until and alive():
        try:
            with socket.create_connection((HOST, port), timeout=1) as connection:
                connection.sendall(request)
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.001)
    raise TimeoutError(f"nothing answers 200 on port {port}")


def resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS in /proc")
