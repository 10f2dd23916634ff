"""The revocation feed: tells sidecars which of their sessions and connections have ended.

A sidecar polls with the cursor of its last answer. The answer comes when something of its workload
ended, or after `poll_seconds`. Each answer repeats what ended in the last 15 seconds before the
cursor, because transactions may commit out of order and clocks of replicas differ. Where those are
hundreds, a replica leaves out what an answer of its own has named to the holder of the cursor.

The database is looked at once a second, and what was seen is kept in memory (`recent_revocations`).
Polls are answered from there, so a mass of revocations costs one read and one answer per look.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from authserver.audit import Audit
from authserver.internal.recent_revocations import (
    NamedRevocation,
    NamedRevocations,
    RecentRevocations,
)
from authserver.metrics import Metrics
from authserver.storage.contract import StorageUnavailable
from authserver.storage.feed_followers import FeedFollowers
from authserver.storage.revocations import KEPT_SECONDS, DatabaseIdentity, Revocation, Revocations
from authserver.values import Value
from chassis.clock import Clock
from chassis.logs import Log
from chassis.spiffe_id import Workload

_log = Log("revocation_feed")

POLL_SECONDS: Final = 25.0
REPEATED_SECONDS: Final = 15
# More than this in one answer would not fit into what a sidecar reads.
MAX_NAMED: Final = 5_000
_LOOK_SECONDS: Final = 1.0
# After a look, so that many revocations are not one look each; longer while each look finds some.
_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 0.8
_NOTE_SECONDS: Final = 10
_LOOKED_BACK_SECONDS: Final = REPEATED_SECONDS + 5
# A look that is older says nothing about now.
_LOOK_COUNTS_SECONDS: Final = 3
# More are not repeated to a sidecar whose cursor has a mark of this replica.
MAX_REPEATED: Final = 500
_CURSOR: Final = re.compile(
    r"([\w-]{1,64})\.([0-9]{1,12})\.([0-9a-f]{0,32})\.((?:[0-9a-f]{16}-[0-9]{1,15})?)"
    r"\.([0-9a-f]{36})",
    re.ASCII,
)


class _Cursor(Value, frozen=True):
    """What an answer covered: all until `moment`. `named` is the hash of what it named last.

    `mark`: where in the memory of one replica that was; empty for an answer from storage.
    """

    database_id: str
    moment: int
    named: str
    mark: str

    @property
    def parts(self) -> tuple[str, ...]:
        return self.database_id, str(self.moment), self.named, self.mark


class _Recorded(NamedTuple):
    """What ended of an owner, as far as is known at `moment`.

    `last` is the hash of what the answer to the next poll repeats, `mark` is a cursor's.
    """

    moment: int
    named: NamedRevocations
    last: str
    mark: str = ""


class RevocationFeed:
    """The feed of one replica. `poll_seconds` is real time, `clock` is Unix time."""

    def __init__(
        self,
        revocations: Revocations,
        identity: DatabaseIdentity,
        followers: FeedFollowers,
        audit: Audit,
        metrics: Metrics,
        clock: Clock,
        replica: str,
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._revocations, self._identity = revocations, identity
        self._followers, self._replica = followers, replica
        self._audit, self._metrics, self._clock = audit, metrics, clock
        self.poll_seconds = poll_seconds
        self._waiting: defaultdict[Workload, set[asyncio.Event]] = defaultdict(set)
        self._woken = asyncio.Event()
        self._database_id = ""
        self._recent = RecentRevocations()
        self._looked_at: int | None = None
        self._draining, self._noted_at = False, 0
        metrics.revocation_polls.set_function(lambda: self.waiting)

    @property
    def waiting(self) -> int:
        """How many polls wait for an answer."""
        return sum(map(len, self._waiting.values()))

    async def run(self) -> None:
        """Look for what other processes ended, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._revocations.listen(self._woken.set))
            tasks.create_task(self._look_forever())

    async def look(self) -> bool:
        """Find what is new since the last look, and wake those who wait for it; was there any?"""
        now = int(self._clock())
        since = min(self._looked_at if self._looked_at is not None else now, now)
        since -= _LOOKED_BACK_SECONDS
        identity, woken = await self._identity.get(), set[Workload]()
        if replaced := identity != self._database_id:
            self._database_id, self._recent = identity, RecentRevocations()
        try:
            async for page in self._revocations.since(since, known=self._recent):
                for one in page:
                    self._notice(one)
                    woken.add(one.owner)
            self._recent.looked(since, now)
            self._looked_at = now
        finally:  # the next look finds nothing new in what a broken one has noticed
            for owner in self._waiting if replaced else woken:
                self._wake(owner)
        return bool(woken)

    def _notice(self, new: Revocation) -> None:
        if self._looked_at is not None:
            self._metrics.revocations.labels("session" if new.tsid else "connection").inc()
        self._recent.add(new.owner, self._named(new))

    async def note_followers(self) -> None:
        """Let operators' commands know how many sidecars wait here, of which owners."""
        counts = {str(owner): len(events) for owner, events in self._waiting.items()}
        self._noted_at = int(self._clock())
        await self._followers.note(self._replica, counts, self._noted_at)

    def release(self) -> None:
        """Answer everyone who waits, and nobody waits from now on: the process is draining."""
        self._draining = True
        for owner in self._waiting:
            self._wake(owner)

    async def poll(self, owner: Workload, cursor: str | None) -> dict[str, Any]:
        """The answer for `owner`, as JSON members, when there is one. Raises StorageUnavailable."""
        if not self._database_id:
            self._database_id = await self._identity.get()
        with self._wakened(owner) as event:
            answer, news = await self._look_up(owner, cursor)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.poll_seconds):
                    while not (news or self._draining):
                        await event.wait()
                        event.clear()
                        answer, news = await self._look_up(owner, cursor)
        return answer

    async def _look_forever(self) -> None:
        down, pause = False, _PAUSE_SECONDS
        while True:
            self._woken.clear()
            try:
                any_new = await self.look()
                pause = min(2 * pause, _MAX_PAUSE_SECONDS) if any_new else _PAUSE_SECONDS
                if abs(int(self._clock()) - self._noted_at) >= _NOTE_SECONDS:
                    await self.note_followers()
                down = False
            except StorageUnavailable:
                if not down:
                    _log.warning("storage_down")
                down = True
            except Exception as bug:  # noqa: BLE001 - without this task nobody would be woken
                _log.failure("look_failed", bug)
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(_LOOK_SECONDS - pause):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _look_up(self, owner: Workload, text: str | None) -> tuple[dict[str, Any], bool]:
        """The answer as it is now, and whether it says anything."""
        now, cursor = int(self._clock()), self._read(owner, text)
        if cursor is not None and cursor.database_id != self._database_id:
            return {"ended": [], "reset": True, "cursor": self._write(owner, now, "", "")}, True
        gap = cursor is None or cursor.moment < now - KEPT_SECONDS + REPEATED_SECONDS
        since = 0 if cursor is None or gap else min(cursor.moment, now) - REPEATED_SECONDS
        recorded = await self._recorded(owner, since, now)
        moment, named, last, mark = recorded
        answer: dict[str, Any] = {"cursor": self._write(owner, moment, last, mark)}
        if cursor is not None and not gap:
            if named.hash == cursor.named:
                return answer | {"ended": []}, False
            if mark and len(named.members) > MAX_REPEATED:
                named = self._recent.added_after(owner, cursor.mark) or named
        if len(named.members) > MAX_NAMED:
            return answer | {"ended": [], "everything": True}, True
        answer["ended"] = named.members
        return (answer | {"gap": True} if gap else answer), True

    async def _recorded(self, owner: Workload, since: int, now: int) -> _Recorded:
        """What ended of an owner at `since` or later."""
        complete, looked_at = self._recent.complete_since, self._looked_at
        if (
            looked_at is not None
            and abs(now - looked_at) <= _LOOK_COUNTS_SECONDS
            and complete is not None
            and complete <= since
        ):
            last = self._recent.since(owner, looked_at - REPEATED_SECONDS)
            named = self._recent.since(owner, since)
            return _Recorded(looked_at, named, last.hash, self._recent.mark)
        rows = await self._revocations.of_owner(owner, since, MAX_NAMED + 1)
        listed = [self._named(row) for row in rows]
        last = NamedRevocations(one for one in listed if one.ended_at >= now - REPEATED_SECONDS)
        return _Recorded(now, NamedRevocations(listed), last.hash)

    def _named(self, revocation: Revocation) -> NamedRevocation:
        """How one is named to its owner's sidecars: the handle of their exchange answers."""
        owner = str(revocation.owner)
        if revocation.tsid is not None:
            handle = self._audit.handle("session", owner, revocation.tsid)
        else:
            user_id, upstream = revocation.user_id or "", revocation.upstream or ""
            handle = self._audit.handle("connection", owner, user_id, upstream)
        return NamedRevocation.of(revocation.ended_at, revocation.revocation_id, handle)

    def _read(self, owner: Workload, text: str | None) -> _Cursor | None:
        """The cursor in a poll; None for one that we cannot have given to this owner."""
        match = _CURSOR.fullmatch(text or "")
        if match is None:
            return None
        database_id, moment, named, mark, tag = match.groups()
        cursor = _Cursor(database_id, int(moment), named, mark)
        # Another database has another key, so only the tags of ours can be checked.
        ours = database_id == self._database_id
        return None if ours and tag != self._tag(owner, cursor) else cursor

    def _write(self, owner: Workload, moment: int, named: str, mark: str) -> str:
        cursor = _Cursor(self._database_id, moment, named, mark)
        return ".".join((*cursor.parts, self._tag(owner, cursor)))

    def _tag(self, owner: Workload, cursor: _Cursor) -> str:
        return self._audit.handle("cursor", str(owner), *cursor.parts)

    @contextmanager
    def _wakened(self, owner: Workload) -> Iterator[asyncio.Event]:
        """An event that is set when something of `owner` ended, inside the block."""
        event = asyncio.Event()
        self._waiting[owner].add(event)
        try:
            yield event
        finally:
            self._waiting[owner].discard(event)
            if not self._waiting[owner]:
                del self._waiting[owner]

    def _wake(self, owner: Workload) -> None:
        for event in self._waiting.get(owner, ()):
            event.set()
