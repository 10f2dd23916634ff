"""Tables of the documentation, which tests compare with the code."""

from collections.abc import Iterator
from pathlib import Path


def tables_of(page: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """Each table with the heading above it; its first row is the header."""
    heading, rows = "", list[list[str]]()
    for line in [*page.read_text().splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not set(line) <= set("|- :"):
                rows.append(cells)
        elif rows:
            yield heading, rows
            rows = []
        if line.startswith("#"):
            heading = line.lstrip("# ")
