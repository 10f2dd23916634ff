"""What ended of late, by owner, in the memory of one replica.

The revocation feed answers from here, so that a mass of revocations is read from the database once,
however many sidecars ask.
"""

import hashlib
import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Final, NamedTuple

from chassis.spiffe_id import Workload

# Longer than a poll, and what it repeats.
KEPT_SECONDS: Final = 60
_DIGEST_BYTES: Final = 16
_DIGESTS: Final = 1 << 8 * _DIGEST_BYTES


class NamedRevocation(NamedTuple):
    """One revocation as an answer names it. `ended_at` is Unix seconds."""

    ended_at: int
    members: Mapping[str, str]
    digest: int

    @property
    def id(self) -> str:
        return self.members["id"]

    @classmethod
    def of(cls, ended_at: int, identifier: str, handle: str) -> "NamedRevocation":
        digest = hashlib.sha256(identifier.encode()).digest()[:_DIGEST_BYTES]
        return cls(ended_at, {"id": identifier, "handle": handle}, int.from_bytes(digest))


class NamedRevocations:
    """Some revocations as an answer names them, and a hash of which they are."""

    def __init__(self, revocations: Iterable[NamedRevocation] = ()) -> None:
        self.members: list[Mapping[str, str]] = []
        self._digest = 0
        for one in revocations:
            self.add(one)

    def add(self, one: NamedRevocation) -> None:
        self.members.append(one.members)
        # A sum, because the order in which they came says nothing.
        self._digest += one.digest

    def add_all(self, others: "NamedRevocations") -> None:
        self.members += others.members
        self._digest += others._digest

    @property
    def hash(self) -> str:
        """Empty for nothing."""
        return f"{self._digest % _DIGESTS:0{2 * _DIGEST_BYTES}x}" if self.members else ""


class RecentRevocations:
    """Holds what ended at `complete_since` (Unix seconds) or later, as of the last look.

    By the second in which it ended, so that an answer of thousands takes no step for each.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._seconds: dict[int, dict[Workload, NamedRevocations]] = {}
        self._in_order: defaultdict[Workload, deque[tuple[int, NamedRevocation]]]
        self._in_order = defaultdict(deque)
        self._name, self._added = secrets.token_hex(8), 0
        self.complete_since: int | None = None

    @property
    def mark(self) -> str:
        """Stands for all that was added until now, in this memory and no other."""
        return f"{self._name}-{self._added}"

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._ids

    def ended_at(self, moment: int) -> int:
        """How many ended in this second, of whichever owner."""
        return sum(len(named.members) for named in self._seconds.get(moment, {}).values())

    def add(self, owner: Workload, revocation: NamedRevocation) -> None:
        self._ids.add(revocation.id)
        of_owner = self._seconds.setdefault(revocation.ended_at, {})
        of_owner.setdefault(owner, NamedRevocations()).add(revocation)
        self._added += 1
        self._in_order[owner].append((self._added, revocation))

    def since(self, owner: Workload, moment: int) -> NamedRevocations:
        """What ended of `owner` at `moment` or later."""
        named = NamedRevocations()
        for second in sorted(self._seconds):
            if second >= moment and (of_second := self._seconds[second].get(owner)) is not None:
                named.add_all(of_second)
        return named

    def added_after(self, owner: Workload, mark: str) -> NamedRevocations | None:
        """What was added of `owner` after `mark` was given; None for the mark of another memory."""
        name, _, added = mark.rpartition("-")
        if name != self._name:
            return None
        until, latest = int(added), reversed(self._in_order.get(owner, ()))
        new = takewhile(lambda one: one[0] > until, latest)
        return NamedRevocations(revocation for _, revocation in new)

    def looked(self, since: int, now: int) -> None:
        """All that ended at `since` or later was added; forget what is old by `now`."""
        oldest = now - KEPT_SECONDS
        if self.complete_since is None or self.complete_since > since:
            self.complete_since = since
        self.complete_since = max(self.complete_since, oldest)
        for second in [second for second in self._seconds if second < oldest]:
            for named in self._seconds.pop(second).values():
                self._ids.difference_update(members["id"] for members in named.members)
        for owner, revocations in list(self._in_order.items()):
            while revocations and revocations[0][1].ended_at < oldest:
                revocations.popleft()
            if not revocations:
                del self._in_order[owner]
