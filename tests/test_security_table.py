"""The table of security tests and the threat model: whole, and every test they name exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/reference/security-tests.md").read_text()
THREATS = (ROOT / "docs/explanation/threat-model.md").read_text()
_ROW = re.compile(r"^\| ([ACFGHRST][0-9]+) \| [^|]+ \| (.+) \|$", re.MULTILINE)
_LAST = (("A", 64), ("C", 35), ("R", 17), ("S", 30), ("H", 7), ("T", 17), ("G", 21))
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_threat_and_every_acceptance_row_is_there_once() -> None:
    rows = [number for number, _ in _ROW.findall(PAGE)]
    threats = [f"{kind}{number}" for kind, last in _LAST for number in range(1, last + 1)]
    acceptance = [f"A{number}" for number in range(1, 13)] + [f"F{n}" for n in range(1, 6)]
    assert rows == threats + acceptance


def test_every_row_names_a_test_or_says_why_there_is_none() -> None:
    bare = [n for n, proof in _ROW.findall(PAGE) if not (_TEST.search(proof) or "none: " in proof)]
    assert bare == []


def test_every_row_of_the_threat_model_names_a_test_or_says_why_there_is_none() -> None:
    rows = [line for line in THREATS.splitlines() if line.startswith("| ") and "|---" not in line]
    bare = [row for row in rows if not (_TEST.search(row) or "none: " in row)]
    assert [row for row in bare if not row.endswith("test |")] == []


def test_every_test_that_is_named_exists() -> None:
    named = _TEST.findall(PAGE + THREATS)
    assert len(named) > 100
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(?:async )?def {name}\(", _text(file), re.MULTILINE)
    ]
    assert missing == []


def _text(file: str) -> str:
    path = ROOT / file
    return path.read_text() if path.exists() else ""
