"""Lines of our logs, with or without what `kubectl logs` puts before them."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LogLine = dict[str, Any]


class UnreadableLog(Exception):
    """A file cannot be read; one line for a person."""


def lines_of(files: Sequence[str]) -> Iterator[str]:
    """Every line of the files, `-` for standard input; of standard input where there is no file.

    Raises UnreadableLog.
    """
    for file in files or ("-",):
        if file == "-":
            yield from sys.stdin
            continue
        try:
            with Path(file).open(encoding="utf-8", errors="replace") as opened:
                yield from opened
        except OSError as error:
            raise UnreadableLog(f"{file}: {(error.strerror or 'not readable').lower()}") from None


def parsed(line: str) -> LogLine | None:
    """The members of a line of ours; None for any other."""
    start = line.find("{")
    if start < 0:
        return None
    try:
        members = json.loads(line[start:])
    except ValueError:
        return None
    if not isinstance(members, dict) or not {"time", "process", "event", "source"} <= set(members):
        return None
    return members
