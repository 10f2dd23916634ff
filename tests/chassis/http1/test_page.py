"""The decision page names tests that exist, and every promise of its table has one."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs/decisions/http-server.md"


def test_every_line_of_the_page_names_a_test_that_is_there() -> None:
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(test_\w+)`", row)]
    assert len(rows) - 1 == len([row for row in rows if "`test_" in row]) >= 35
    files = {path.stem: path.read_text("utf-8") for path in HERE.glob("test_*.py")}
    text = "\n".join(files.values())
    assert not [name for name in named if name not in files and f"def {name}(" not in text]
