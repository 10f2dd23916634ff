"""What an admission costs the webhook of this tree and that of another, in one run.

Both servers are up at once, and short rounds of reviews alternate between them: what else the
machine does disturbs both alike. Used by `against`.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.webhook import Server, drive, review
from tests.support.server_certificates import Authority

if TYPE_CHECKING:
    from tests.bench.against import Row, Tree

NAME: Final = "admissions"
_ROUNDS: Final = 25
_SECONDS: Final = 0.3
_CONNECTIONS: Final = 16
_BYTES: Final = 20_000

# More workloads than either build remembers, in turn: each review is of one not seen before.
_WORKLOADS: Final = 1000


def measured(ours: "Tree", theirs: "Tree") -> Iterator[tuple["Row", float, bool]]:
    """Every round's figures; the last member says whether they are of `theirs`."""
    kinds = {
        "admission, 20 kB, 16 connections": [review(_BYTES)],
        "admission, 20 kB, 16 connections, each of another workload": [
            review(_BYTES, f"mcp-{at}") for at in range(_WORKLOADS)
        ],
    }
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        Authority().issue(folder)
        servers = [
            (stack.enter_context(_served(tree, folder)), tree is theirs) for tree in (ours, theirs)
        ]
        for turn in range(_ROUNDS):
            for what, bodies in kinds.items():
                for server, older in servers if turn % 2 else reversed(servers):
                    yield (what, "CPU us/request"), _cpu(server, bodies), older


def _cpu(server: Server, bodies: Sequence[bytes]) -> float:
    return drive(server, bodies, _CONNECTIONS, _SECONDS).cpu_us


@contextmanager
def _served(tree: "Tree", folder: Path) -> Iterator[Server]:
    """The webhook of a tree, without its start: `tests.bench.webhook` of every build serves it."""
    with (folder / f"{tree.folder.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(tree.python), "-m", "tests.bench.webhook", "serve", "webhook", str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=tree.folder,
        )
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline()), process.pid)
    finally:
        process.kill()
        process.communicate()
