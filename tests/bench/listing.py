"""`python -m tests.bench listing`: `tokenward sessions list` of 100,000 sessions, beside one of 10.

Each listing is a process of its own. Its first row comes after the start of the interpreter, which
is the same for both. The list of 10 is in the column of the bare handler.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from demo.layout import Layout
from tests.bench.figures import Figure
from tests.bench.many_sessions import add_sessions
from tests.bench.world import running

_COUNTS: Final = {"many": 100_000, "few": 10}
_ROUNDS: Final = 5


@dataclass(frozen=True)
class _Listing:
    first_ms: float
    whole_ms: float
    peak_mb: float


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as world:
            for client_id, count in _COUNTS.items():
                add_sessions(world.layout, client_id, count)
            figures = []
            for kind in ("text", "json"):
                rounds = [
                    (_list(world.layout, "many", kind), _list(world.layout, "few", kind))
                    for _ in range(_ROUNDS)
                ]
                figures += _figures(kind, rounds)
    return figures


def _list(layout: Layout, client_id: str, kind: str) -> _Listing:
    command = [
        sys.executable, "-m", "tokenward", "sessions", "list",
        "--client", client_id, "--output", kind, "--config", str(layout.config),
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    first = time.perf_counter()
    count = 1 + sum(1 for _ in process.stdout)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0 or count < _COUNTS[client_id]:
        raise ValueError(f"{count} lines, status {status}")
    ended = time.perf_counter()
    return _Listing(1000 * (first - started), 1000 * (ended - started), usage.ru_maxrss / 1024)


def _figures(kind: str, rounds: list[tuple[_Listing, _Listing]]) -> list[Figure]:
    def median(side: int, member: str) -> float:
        return float(statistics.median(asdict(pair[side])[member] for pair in rounds))

    name = f"`sessions list --output {kind}` of {_COUNTS['many']:,}, beside {_COUNTS['few']}"
    units = {"first_ms": "ms to the first row", "peak_mb": "MB at most", "whole_ms": "ms in all"}
    return [
        Figure(name, unit, median(0, member), median(1, member)) for member, unit in units.items()
    ]
