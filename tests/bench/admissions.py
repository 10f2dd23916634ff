"""What an admission costs the webhook of this tree and that of an earlier build, in one run.

Both servers are up at once, and short rounds of reviews take turns between them, as in
`side_by_side`.
"""

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.side_by_side import Row
from tests.bench.webhook import drive, review, served
from tests.support.server_certificates import Authority

_ROUNDS: Final = 25
_SECONDS: Final = 0.3
_CONNECTIONS: Final = 16
_BYTES: Final = 20_000

# More workloads than either build remembers, in turn: each review is of one not seen before.
_WORKLOADS: Final = 1000


def measure(ours: Path, theirs: Path) -> list[Row]:
    """The rows of two trees, each a folder with its environment in `.venv`."""
    seen = f"admission, {_BYTES // 1000} kB, {_CONNECTIONS} connections"
    kinds = {
        seen: [review(_BYTES)],
        f"{seen}, each of another workload": [
            review(_BYTES, f"mcp-{at}") for at in range(_WORKLOADS)
        ],
    }
    costs: dict[str, list[tuple[float, float]]] = {what: [] for what in kinds}
    with tempfile.TemporaryDirectory() as made, ExitStack() as started:
        folder = Path(made)
        Authority().issue(folder)
        servers = [
            started.enter_context(served("webhook", folder, tree, str(tree / ".venv/bin/python")))
            for tree in (ours, theirs)
        ]
        for turn in range(_ROUNDS):
            for what, bodies in kinds.items():
                cost = [0.0, 0.0]
                # The order changes, so that neither always runs after the other.
                for number in (0, 1) if turn % 2 else (1, 0):
                    load = drive(servers[number], bodies, _CONNECTIONS, _SECONDS)
                    cost[number] = load.cpu_us
                costs[what].append((cost[0], cost[1]))
    return [_row(what, pairs) for what, pairs in costs.items()]


def _row(what: str, pairs: list[tuple[float, float]]) -> Row:
    now, before = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(mine / its for mine, its in pairs)
    return Row(what, "CPU us/request", now, before, ratio)
