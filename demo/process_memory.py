"""Searches the memory of a child process (proc(5)): what it holds, or held a moment ago."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_REGION: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r")
_PIECE: Final = 4 * 1024 * 1024


def holds_any(pid: int, secrets: Iterable[bytes], proc: Path = Path("/proc")) -> bool:
    """Whether one of the secrets is anywhere in the process's memory.

    Raises OSError where the system does not let us read it: then nothing is known.
    """
    wanted = tuple(secrets)
    overlap = max(map(len, wanted)) - 1
    with (proc / str(pid) / "mem").open("rb", buffering=0) as memory:
        for start, end in _regions(proc / str(pid) / "maps"):
            kept = b""
            for at in range(start, end, _PIECE):
                try:
                    memory.seek(at)
                    piece = kept + memory.read(min(_PIECE, end - at))
                except (OSError, ValueError, OverflowError):
                    break  # special pages of the kernel, or gone in the meantime
                if any(secret in piece for secret in wanted):
                    return True
                kept = piece[-overlap:]
    return False


def _regions(maps: Path) -> Iterator[tuple[int, int]]:
    for line in maps.read_text("ascii", errors="replace").splitlines():
        match = _REGION.match(line)
        if match is not None:
            yield int(match[1], 16), int(match[2], 16)
