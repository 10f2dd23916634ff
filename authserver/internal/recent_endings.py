"""What ended of late, by owner, in the memory of one replica.

The revocation feed answers from here, so that a mass of endings is read from the database once,
however many sidecars ask.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from chassis.spiffe_id import Workload

# Longer than a poll, and what it repeats.
KEPT_SECONDS: Final = 60


class NamedEnding(NamedTuple):
    """One ending as an answer names it. `ended_at` is Unix seconds."""

    ended_at: int
    id: str
    handle: str


class EndingsOfOwner(NamedTuple):
    """What ended of an owner, and a hash of it, which is empty for nothing."""

    endings: tuple[NamedEnding, ...]
    hash: str


def hashed(endings: Iterable[NamedEnding]) -> EndingsOfOwner:
    listed = tuple(endings)
    text = "\0".join(sorted(one.id for one in listed))
    digest = hashlib.sha256(text.encode()).hexdigest()[:32] if listed else ""
    return EndingsOfOwner(listed, digest)


class RecentEndings:
    """Holds what ended at `complete_since` (Unix seconds) or later, as of the last look."""

    def __init__(self) -> None:
        self._owners: dict[str, Workload] = {}
        self._of_owner: defaultdict[Workload, dict[str, NamedEnding]] = defaultdict(dict)
        self._answers: dict[tuple[Workload, int], EndingsOfOwner] = {}
        self.complete_since: int | None = None

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._owners

    def add(self, owner: Workload, ending: NamedEnding) -> None:
        self._owners[ending.id] = owner
        self._of_owner[owner][ending.id] = ending
        self._answers.clear()

    def since(self, owner: Workload, moment: int) -> EndingsOfOwner:
        """What ended of `owner` at `moment` or later. Sidecars that ask together share it."""
        key = owner, moment
        if key not in self._answers:
            known = self._of_owner.get(owner, {}).values()
            self._answers[key] = hashed(one for one in known if one.ended_at >= moment)
        return self._answers[key]

    def looked(self, since: int, now: int) -> None:
        """All that ended at `since` or later was added; forget what is old by `now`."""
        oldest = now - KEPT_SECONDS
        if self.complete_since is None or self.complete_since > since:
            self.complete_since = since
        self.complete_since = max(self.complete_since, oldest)
        for owner, endings in list(self._of_owner.items()):
            for old in [one.id for one in endings.values() if one.ended_at < oldest]:
                del endings[old], self._owners[old]
            if not endings:
                del self._of_owner[owner]
        self._answers.clear()
