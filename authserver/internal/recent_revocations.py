"""What ended of late, by owner, in the memory of one replica.

The revocation feed answers from here, so that a mass of revocations is read from the database once,
however many sidecars ask.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from chassis.spiffe_id import Workload

# Longer than a poll, and what it repeats.
KEPT_SECONDS: Final = 60
_DIGEST_BYTES: Final = 16


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


class RevocationsOfOwner(NamedTuple):
    """What ended of an owner, and a hash of it, which is empty for nothing."""

    revocations: tuple[NamedRevocation, ...]
    hash: str


def hashed(revocations: Iterable[NamedRevocation]) -> RevocationsOfOwner:
    listed = tuple(revocations)
    # A sum, because the order in which they came says nothing.
    digest = sum(one.digest for one in listed) % (1 << 8 * _DIGEST_BYTES)
    return RevocationsOfOwner(listed, f"{digest:0{2 * _DIGEST_BYTES}x}" if listed else "")


class RecentRevocations:
    """Holds what ended at `complete_since` (Unix seconds) or later, as of the last look."""

    def __init__(self) -> None:
        self._owners: dict[str, Workload] = {}
        self._of_owner: defaultdict[Workload, dict[str, NamedRevocation]] = defaultdict(dict)
        self._answers: dict[tuple[Workload, int], RevocationsOfOwner] = {}
        self.complete_since: int | None = None

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._owners

    def add(self, owner: Workload, revocation: NamedRevocation) -> None:
        self._owners[revocation.id] = owner
        self._of_owner[owner][revocation.id] = revocation
        self._answers.clear()

    def since(self, owner: Workload, moment: int) -> RevocationsOfOwner:
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
        for owner, revocations in list(self._of_owner.items()):
            for old in [one.id for one in revocations.values() if one.ended_at < oldest]:
                del revocations[old], self._owners[old]
            if not revocations:
                del self._of_owner[owner]
        self._answers.clear()
