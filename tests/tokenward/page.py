"""The reference page of the command line, by its sections and tables."""

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/command-line.md").read_text("utf-8")


def section(name: str) -> str:
    return re.split(r"^## ", PAGE.split(f"\n## {name}\n")[1], flags=re.MULTILINE)[0]


def first_cells(name: str, title: str) -> list[str]:
    """The first cells of a section's table with this title."""
    rows = section(name).split(f"| {title} |")[1].splitlines()[2:]
    table = []
    for row in rows:
        if not row.startswith("|"):
            break
        table.append(row.split(" | ")[0].removeprefix("| "))
    return table
