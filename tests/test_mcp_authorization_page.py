"""The page of the protocol's authorization: whole, and every test it names exists."""

import re
from pathlib import Path

from tests.support.pages import tables_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/mcp-authorization.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
# How many requirements of each section stand in the specification's text.
_ROWS = {
    "O": 7, "S": 5, "I": 4, "P": 4, "T": 7, "F": 5, "E": 7, "D": 6, "R": 12, "C": 16, "B": 7,
}  # fmt: skip


def _rows() -> list[list[str]]:
    return [row for _, rows in tables_of(PAGE) for row in rows[1:]]


def test_every_requirement_is_there_once() -> None:
    numbers = [number for number, _, _ in _rows()]
    assert numbers == [f"{kind}{n}" for kind, last in _ROWS.items() for n in range(1, last + 1)]


def test_every_row_names_a_test_or_says_why_there_is_none() -> None:
    bare = [n for n, _, proof in _rows() if not (_TEST.search(proof) or "none: " in proof)]
    assert bare == []


def test_every_test_that_is_named_exists() -> None:
    named = _TEST.findall(PAGE.read_text())
    assert len(named) > 80
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(?:async )?def {name}\(", _text(file), re.MULTILINE)
    ]
    assert missing == []


def _text(file: str) -> str:
    path = ROOT / file
    return path.read_text() if path.exists() else ""
