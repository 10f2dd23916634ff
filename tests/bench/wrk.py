"""`wrk` as load generator, where it is installed: ours is slower than what it measures."""

import asyncio
import contextlib
import re
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.bench.load import Load

_LUA: Final = 'wrk.method="{method}"\nwrk.body=[==[{body}]==]\n{fields}\n'


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]


async def until_open(port: int, seconds: float = 20) -> None:
    """Until something listens."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def run_wrk(
    port: int,
    method: str,
    path: str,
    fields: Mapping[str, str],
    body: bytes,
    connections: int,
    seconds: float,
) -> Load | None:
    """One round of one thread; None without `wrk`. Raises RuntimeError for anything but 200."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return None
    lines = "\n".join(f'wrk.headers["{name}"]="{value}"' for name, value in fields.items())
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "calls.lua"
        script.write_text(_LUA.format(method=method, body=body.decode(), fields=lines), "utf-8")
        process = await asyncio.create_subprocess_exec(
            wrk, "-t1", f"-c{connections}", f"-d{seconds:.0f}", "--latency", "-s", str(script),
            f"http://127.0.0.1:{port}{path}", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told = (await process.communicate())[0].decode()
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    requests, per_second = _number(r"(\d+) requests in", told), _number(r"sec: +([\d.]+)", told)
    return Load(per_second, _latency("50%", told), _latency("99%", told), int(requests))


def _number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match is not None, text
    return float(match[1])


def _latency(quantile: str, told: str) -> float:
    number, unit = re.findall(rf"{quantile} +([\d.]+)(us|ms|s)\b", told)[0]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
