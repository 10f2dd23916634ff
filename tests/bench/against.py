"""`python -m tests.bench --against COMMIT [NAME …]`: this tree beside an earlier build, in turn.

The commit gets a worktree and an environment of its own in the user's cache. Both trees take turns,
so that a busy machine disturbs both alike. Without a NAME the footprint of the three processes is
compared. A NAME runs that measurement in both trees and joins the rows of their tables.
Only the ratio of the two medians is meaningful.
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

ROOT: Final = Path(__file__).resolve().parents[2]
FOOTPRINT: Final = "footprint"
_PROBE: Final = Path(__file__).with_name("footprint_probe.py")
_ROUNDS: Final = 7
_TABLE_ROUNDS: Final = 5
_ROW: Final = re.compile(r"\| (?P<name>[^|]+) \| (?P<unit>[^|]+) \| (?P<ours>[\d.,]+) \|")

Row = tuple[str, str]  # what, unit


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
    rows: dict[Row, tuple[list[float], list[float]]] = {}
    for name in names or [FOOTPRINT]:
        for turn in range(_ROUNDS if name == FOOTPRINT else _TABLE_ROUNDS):
            # The order changes from round to round, so that neither always runs on a warm machine.
            for tree in (ours, theirs) if turn % 2 else (theirs, ours):
                for row, value in _measured(tree, name):
                    rows.setdefault(row, ([], []))[tree is theirs].append(value)
    return _table(commit, rows)


def _measured(tree: Tree, name: str) -> Iterator[tuple[Row, float]]:
    if name == FOOTPRINT:
        for what, unit, value in json.loads(tree.run(str(_PROBE))):
            yield (what, unit), value
        return
    for line in tree.run("-m", "tests.bench", name).splitlines():
        if match := _ROW.match(line):
            yield (match["name"], match["unit"]), float(match["ours"].replace(",", ""))


def _table(commit: str, rows: dict[Row, tuple[list[float], list[float]]]) -> str:
    lines = [f"| what | unit | now | {commit} | now / {commit} |", "|---|---|---:|---:|---:|"]
    for (what, unit), (now, before) in rows.items():
        if now and before:
            new, old = statistics.median(now), statistics.median(before)
            lines.append(f"| {what} | {unit} | {new:,.2f} | {old:,.2f} | {new / old:.2f} |")
    return "\n".join(lines)
