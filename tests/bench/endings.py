"""`python -m tests.bench endings`: releases of others while `tokenward sessions end` ends 10,000.

The sessions are of users who have no connections left at the upstream, so that the time is ours.
The quiet rounds before stand in the column of the bare handler.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from demo.layout import HOST, Layout
from tests.bench.figures import Figure, medians
from tests.bench.load import Load
from tests.bench.many_sessions import add_sessions
from tests.bench.open_loop import Line, Steady, opened
from tests.bench.release import exchange_call
from tests.bench.world import pin, running

_SESSIONS: Final = 10_000
_RATE: Final = 200.0
_QUIET_SECONDS: Final = 20.0
_LINES: Final = 16
_CLIENT: Final = "departed"


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as world:
            layout, port = world.layout, world.layout.internal_port
            add_sessions(layout, _CLIENT, _SESSIONS)
            lines = await opened(HOST, port, [world.workload_tls()], _LINES)
            call = exchange_call(port, world.jwt)
            quiet = await _load(lines, call, None)
            busy = await _load(lines, call, asyncio.create_task(_end(layout)))
            for line in lines:
                line.close()
    name = f"exchanges at {_RATE:,.0f} requests/s while {_SESSIONS:,} sessions end, beside quiet"
    return medians(name, [(busy, quiet)], ("p50 ms", "p99 ms"))


async def _load(lines: list[Line], call: bytes, ending: asyncio.Task[None] | None) -> Load:
    """A round of load: for some seconds, or for as long as something ends."""
    steady = Steady(lines, lambda _: call, rate=_RATE)
    if ending is None:
        return await steady.run(lambda passed: passed >= _QUIET_SECONDS)
    load = await steady.run(lambda _: ending.done())
    ending.result()
    if steady.failed:
        raise ValueError(f"{steady.failed} of {steady.sent} exchanges failed")
    return load


async def _end(layout: Layout) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tokenward", "sessions", "end", "--client", _CLIENT,
        "--reason", "measured", "--config", str(layout.config),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    # Where the authserver is, as in its pod: on the other core it would hold back the load itself.
    pin([process.pid], core=0)
    out, _ = await process.communicate()
    if f"{_SESSIONS} session(s) ended" not in out.decode():
        raise ValueError(out.decode())
