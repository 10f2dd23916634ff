"""Listings and reports: a table for people, or one JSON document, written while it is read."""

import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

_MEASURED_ROWS: Final = 50
_MAX_WIDTH: Final = 60

Item = Mapping[str, Any]


class Output:
    """Writes to `stream`, as text or JSON."""

    def __init__(self, kind: str, stream: TextIO | None = None) -> None:
        self._json, self._stream = kind == "json", stream or sys.stdout

    async def listing(self, name: str, columns: Sequence[str], items: AsyncIterator[Item]) -> int:
        """Write each item as it comes; how many there were. `name` is the JSON member."""
        try:
            if self._json:
                return await self._json_listing(name, items)
            return await self._table(columns, items)
        finally:
            self._stream.flush()

    def report(self, members: Item, lines: Iterable[str]) -> None:
        """Write one JSON object, or lines for a person."""
        if self._json:
            self._line(json.dumps(members, ensure_ascii=True))
        else:
            for line in lines:
                self._line(printable(line))
        self._stream.flush()

    async def _json_listing(self, name: str, items: AsyncIterator[Item]) -> int:
        self._stream.write(f"{{{json.dumps(name)}: [")
        count = 0
        async for item in items:
            self._stream.write(f"{',' if count else ''}\n{json.dumps(item, ensure_ascii=True)}")
            count += 1
            if count == _MEASURED_ROWS:
                self._stream.flush()
        self._line(f'\n], "count": {count}}}')
        return count

    async def _table(self, columns: Sequence[str], items: AsyncIterator[Item]) -> int:
        first: list[list[str]] = []
        widths: list[int] = []
        count = 0
        async for item in items:
            row = [_cell(item[column]) for column in columns]
            count += 1
            if not widths:
                first.append(row)
                if len(first) == _MEASURED_ROWS:
                    widths = self._begin(columns, first)
            else:
                self._row(row, widths)
        if not widths and first:
            self._begin(columns, first)
        if not count:
            self._line("none")
        return count

    def _begin(self, columns: Sequence[str], rows: list[list[str]]) -> list[int]:
        titles = [column.replace("_", " ").upper() for column in columns]
        widths = [
            min(_MAX_WIDTH, max(len(row[at]) for row in (titles, *rows)))
            for at in range(len(columns))
        ]
        for row in (titles, *rows):
            self._row(row, widths)
        self._stream.flush()  # the first rows are seen at once, however many follow
        return widths

    def _row(self, cells: Sequence[str], widths: Sequence[int]) -> None:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        self._line("  ".join(padded).rstrip())

    def _line(self, text: str) -> None:
        self._stream.write(f"{text}\n")


def printable(text: str) -> str:
    """Without what could move a terminal's cursor or change the order of what is read."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else printable(str(value))
