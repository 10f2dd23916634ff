"""How much, for how long and for how many a listener works: sizes, deadlines, connections."""

from collections import Counter
from typing import NamedTuple


class Limits(NamedTuple):
    """Sizes in bytes, times in seconds.

    `body_bytes` and `body_seconds` are what `Request.read` uses where a handler names nothing
    else. `body_seconds` bounds the whole body there, and each wait for a piece in
    `Request.stream`. `write_seconds` bounds how long a peer may leave a written answer unread.
    `connections_per_source` is None where all callers share one address.
    """

    head_bytes: int = 16 * 1024
    target_bytes: int = 8 * 1024
    fields: int = 64
    body_bytes: int = 16 * 1024
    connections: int = 512
    connections_per_source: int | None = None
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    linger_seconds: float = 1.0


class ConnectionCount:
    """How many connections there are, in total and of each source."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sources: Counter[str] = Counter()
        self._total = 0

    def admit(self, source: str) -> bool:
        """Count a new connection of `source`, unless there are too many."""
        most = self._limits.connections_per_source
        if self._total >= self._limits.connections:
            return False
        if most is not None and self._sources[source] >= most:
            return False
        self._total += 1
        self._sources[source] += 1
        return True

    def dismiss(self, source: str) -> None:
        """Take back one that `admit` counted."""
        self._total -= 1
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]
