"""A process starts whole or not at all, and ends when it is told to."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

PROGRAM = """
import asyncio, sys
from aiohttp import web
from authserver.public.aiohttp_listener import AiohttpListener
from authserver.public.connection_limits import ConnectionLimits
from chassis import http1_probes, logs, process as run
from chassis.http1.listener import Listener
from chassis.http1.server import Server
from chassis.probes import Readiness, new_registry

async def slow(request):
    print("arrived", flush=True)
    await asyncio.Event().wait()

def on_http1(*address, **options):
    return Listener(*address, Server(slow), **options)

def on_aiohttp(*address, **options):
    application = web.Application()
    application.router.add_get("/", slow)
    return AiohttpListener(*address, application, ConnectionLimits(), **options)

async def process():
    readiness = Readiness("listening")
    ops_server = http1_probes.ops_server(readiness, new_registry())
    ops = Listener("ops", "127.0.0.1", 0, ops_server)
    listeners = [
        KIND("first", "127.0.0.1", 0),
        KIND("second", HOST, PORT, loopback_only=LOOPBACK),
    ]
    await run.serve(listeners, ops=ops, readiness=readiness, drain_seconds=DRAIN)

logs.configure("test")
run.main(process)
"""


@dataclass
class Process:
    child: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def until(self, event: str) -> dict[str, Any]:
        """The next line of this event."""
        assert self.child.stderr is not None
        while text := await self.child.stderr.readline():
            self.lines.append(json.loads(text))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        raise AssertionError(f"no {event} among {self.lines}")

    async def code(self) -> int:
        return await self.child.wait()


@pytest.fixture(params=["on_http1", "on_aiohttp"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which server answers: processes run both, and neither may make a difference here."""
    return str(request.param)


@asynccontextmanager
async def running(
    kind: str, host: str = "127.0.0.1", port: int = 0, loopback: bool = False, drain: float = 20.0
) -> AsyncIterator[Process]:
    program = PROGRAM.replace("KIND", kind)
    options = {"HOST": host, "PORT": port, "LOOPBACK": loopback, "DRAIN": drain}
    for name, value in options.items():
        program = program.replace(name, repr(value))
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(child)
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_process_cleanly(kind: str, number: signal.Signals) -> None:
    async with running(kind) as process:
        for _ in range(3):
            await process.until("listening")
        await process.until("ready")
        process.child.send_signal(number)
        await process.until("stopped")
        assert await process.code() == 0


async def in_flight(process: Process) -> asyncio.StreamWriter:
    ports = {}
    for _ in range(3):
        line = await process.until("listening")
        ports[line["listener"]] = line["port"]
    await process.until("ready")
    _, writer = await asyncio.open_connection("127.0.0.1", ports["first"])
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert process.child.stdout is not None
    assert await process.child.stdout.readline() == b"arrived\n"
    return writer


async def test_a_second_signal_ends_a_process_that_drains(kind: str) -> None:
    async with running(kind, drain=50.0) as process:
        writer = await in_flight(process)
        process.child.send_signal(signal.SIGTERM)
        await process.until("draining")
        process.child.send_signal(signal.SIGTERM)
        assert await process.code() == 128 + signal.SIGTERM
        writer.close()


async def test_what_hangs_is_cut_off_when_the_time_for_draining_is_over(kind: str) -> None:
    async with running(kind, drain=0.2) as process:
        writer = await in_flight(process)
        process.child.send_signal(signal.SIGTERM)
        await process.until("stopped")
        assert await process.code() == 0
        writer.close()


async def test_a_port_in_use_stops_every_listener(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(kind, port=port) as process:
            failed = await process.until("start_failed")
            assert failed["problem"] == (
                f"second listener: port {port} on 127.0.0.1 is already in use"
            )
            assert await process.code() == 1
            assert not any(line["event"] == "ready" for line in process.lines)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_listener_for_loopback_does_not_open_to_others(kind: str, host: str) -> None:
    async with running(kind, host=host, loopback=True) as process:
        failed = await process.until("start_failed")
        assert "second listener" in failed["problem"]
        assert await process.code() == 1


async def printed_by(program: str) -> bytes:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    return (await child.communicate())[0]


async def test_no_other_process_of_the_user_may_read_a_processs_memory() -> None:
    program = (
        "import ctypes, resource\nfrom chassis import process as run\nrun.forbid_dumps()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert await printed_by(program) == b"0 (0, 0)\n"


async def test_a_process_may_have_as_many_connections_as_the_system_lets_it() -> None:
    program = (
        "import resource\nfrom chassis import process as run\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))\n"
        "async def process(): print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "run.main(process)"
    )
    assert await printed_by(program) == b"(128, 128)\n"
