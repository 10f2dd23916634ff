"""`python -m tests.bench --against COMMIT [NAME …]`: this tree beside an earlier build, in turn.

The commit gets a worktree and an environment of its own in the user's cache. Both trees take turns,
so that a busy machine disturbs both alike. Without a NAME the footprint of the three processes is
compared, and `requests` compares what requests cost. Any other NAME runs that measurement in both
trees and joins the rows of their tables. Only ratios are meaningful.
"""

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import side_by_side
from tests.bench.side_by_side import Row

ROOT: Final = Path(__file__).resolve().parents[2]
FOOTPRINT: Final = "footprint"
REQUESTS: Final = "requests"
_PROBE: Final = Path(__file__).with_name("footprint_probe.py")
_ROUNDS: Final = 7
_TABLE_ROUNDS: Final = 5
_ROW: Final = re.compile(r"\| (?P<name>[^|]+) \| (?P<unit>[^|]+) \| (?P<ours>[\d.,]+) \|")

Named = tuple[str, str]  # what, unit


@dataclass(frozen=True)
class Tree:
    folder: Path
    python: Path

    def run(self, *arguments: str) -> str:
        """Standard output of a program that runs in this tree. Raises CalledProcessError."""
        outside = os.environ  # noqa: TID251 - a child needs to find its programs
        environment = {name: outside[name] for name in ("PATH", "HOME") if name in outside}
        ended = subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env=environment | {"PYTHONPATH": str(self.folder)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return ended.stdout


def checked_out(commit: str) -> Tree:
    """A worktree of `commit` with the dependencies that it locks; made once and kept."""
    sha = _git("rev-parse", "--verify", f"{commit}^{{commit}}")
    caches = os.environ.get("XDG_CACHE_HOME")  # noqa: TID251 - the user's choice of a place
    cache = Path(caches or Path.home() / ".cache") / "tokenward-bench"
    tree = Tree(cache / sha, cache / sha / ".venv/bin/python")
    if not tree.folder.exists():
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", "--force", str(tree.folder), sha)
    if not (tree.folder / ".venv/.complete").exists():
        venv = tree.folder / ".venv"
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(tree.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--require-hashes", "-r", "requirements.lock"], cwd=tree.folder, check=True
        )
        (venv / ".complete").touch()
    return tree


def _git(*arguments: str) -> str:
    ended = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return ended.stdout.strip()


def compare(commit: str, names: Sequence[str]) -> str:
    """A Markdown table: this tree, the commit, and the ratio, for each row that both have."""
    ours, theirs = Tree(ROOT, Path(sys.executable)), checked_out(commit)
    rows: dict[Named, tuple[list[float], list[float]]] = {}
    lines = [f"| what | unit | now | {commit} | now / {commit} |", "|---|---|---:|---:|---:|"]
    for name in names or [FOOTPRINT]:
        if name == REQUESTS:
            lines += map(_line, side_by_side.measure(ours.folder, theirs.folder))
            continue
        for turn in range(_ROUNDS if name == FOOTPRINT else _TABLE_ROUNDS):
            # The order changes from round to round, so that neither always runs on a warm machine.
            for tree in (ours, theirs) if turn % 2 else (theirs, ours):
                for row, value in _measured(tree, name):
                    rows.setdefault(row, ([], []))[tree is theirs].append(value)
    return "\n".join([*lines, *map(_line, _medians(rows))])


def _measured(tree: Tree, name: str) -> Iterator[tuple[Named, float]]:
    if name == FOOTPRINT:
        for what, unit, value in json.loads(tree.run(str(_PROBE))):
            yield (what, unit), value
        return
    for line in tree.run("-m", "tests.bench", name).splitlines():
        if match := _ROW.match(line):
            yield (match["name"], match["unit"]), float(match["ours"].replace(",", ""))


def _medians(rows: dict[Named, tuple[list[float], list[float]]]) -> Iterator[Row]:
    for (what, unit), (now, before) in rows.items():
        if now and before:
            new, old = statistics.median(now), statistics.median(before)
            yield Row(what, unit, new, old, new / old)


def _line(row: Row) -> str:
    return f"| {row.what} | {row.unit} | {row.now:,.2f} | {row.before:,.2f} | {row.ratio:.2f} |"
