"""Which sessions and connections the authserver has announced as ended, and when we heard it.

A handle is remembered for a minute. A token that was asked for before its handle was announced may
be one of the ended session; no exchange and no token in memory is older than that.
"""

import math
from collections.abc import Iterable
from typing import Final

from chassis.clock import Clock
from sidecar.identity import Identity
from sidecar.ttl_cache import TtlCache

REMEMBERED_SECONDS: Final = 60.0
# An answer names at most 5000; what it repeats is remembered under the same id.
_MAX_REMEMBERED: Final = 50_000


class EndedHandles:
    """`now` is a monotonic clock in seconds."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._announced_at = TtlCache[float](
            max_entries=_MAX_REMEMBERED, max_weight=_MAX_REMEMBERED
        )
        self._ids = TtlCache[bool](max_entries=_MAX_REMEMBERED, max_weight=_MAX_REMEMBERED)
        self._everything_at = -math.inf

    def __contains__(self, identifier: object) -> bool:
        """Whether this ending was announced, and is still remembered."""
        return identifier in self._ids

    def announce(self, ended: Iterable[tuple[str, str]]) -> frozenset[str]:
        """Remember endings by id and handle; the handles of those that are new to us."""
        now, new = self._now(), set()
        for identifier, handle in ended:
            if self._ids.get(identifier, now) is None:
                self._ids.put(identifier, True, until=now + REMEMBERED_SECONDS)
                self._announced_at.put(handle, now, until=now + REMEMBERED_SECONDS)
                new.add(handle)
        return frozenset(new)

    def announce_everything(self) -> None:
        """Whatever was asked for until now may have ended."""
        self._everything_at = self._now()

    def cover(self, identity: Identity | None, asked_at: float) -> bool:
        """Whether what was asked for at `asked_at` may be of something that ended after that."""
        if asked_at <= self._everything_at:
            return True
        if identity is None:
            return False
        now = self._now()
        announced = (
            self._announced_at.get(handle, now)
            for handle in (identity.session, identity.connection)
            if handle is not None
        )
        return any(at is not None and asked_at <= at for at in announced)

    def sweep(self) -> None:
        """Forget what was announced a minute ago."""
        self._announced_at.sweep(self._now())
        self._ids.sweep(self._now())
