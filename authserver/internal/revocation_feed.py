"""The revocation feed: tells sidecars which of their sessions and connections have ended.

A sidecar polls with the cursor of its last answer. The answer comes when something of its workload
ended, or after `poll_seconds`. Each answer repeats what ended in the last 15 seconds before the
cursor, because transactions may commit out of order and clocks of replicas differ.
"""

import asyncio
import hashlib
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from authserver.audit import Audit
from authserver.metrics import Metrics
from authserver.storage.contract import StorageUnavailable
from authserver.storage.feed_followers import FeedFollowers
from authserver.storage.revocations import KEPT_SECONDS, DatabaseIdentity, Revocation, Revocations
from chassis.clock import Clock
from chassis.logs import Log
from chassis.spiffe_id import Workload

_log = Log("revocation_feed")

POLL_SECONDS: Final = 25.0
REPEATED_SECONDS: Final = 15
# More than this in one answer would not fit into what a sidecar reads.
MAX_NAMED: Final = 5_000
_LOOK_SECONDS: Final = 1.0
# After a wake-up, so that a mass of endings is not one look each.
_PAUSE_SECONDS: Final = 0.1
_NOTE_SECONDS: Final = 10
_LOOKED_BACK_SECONDS: Final = REPEATED_SECONDS + 5
# Longer than a poll and what it repeats.
_SHARED_SECONDS: Final = 60
_CURSOR: Final = re.compile(r"([\w-]{1,64})\.([0-9]{1,12})\.([0-9a-f]{0,32})\.([0-9a-f]{36})", re.A)


Read = Callable[[Workload, int, int], Awaitable[list[Revocation]]]


@dataclass(frozen=True)
class _Cursor:
    """What an answer covered: all until `moment`. `named` is the hash of what it named last."""

    database_id: str
    moment: int
    named: str


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
        self._seen: set[str] = set()
        self._looked_at: int | None = None
        self._shared: dict[Workload, tuple[int, asyncio.Future[list[Revocation]]]] = {}
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

    async def look(self) -> None:
        """Find what is new since the last look, and wake those who wait for it."""
        now = int(self._clock())
        since = min(self._looked_at if self._looked_at is not None else now, now)
        identity, seen = await self._identity.get(), set()
        async for page in self._revocations.since(since - _LOOKED_BACK_SECONDS):
            self._shared.clear()  # whoever is woken now must read what this page has read
            for one in page:
                seen.add(one.revocation_id)
                if one.revocation_id not in self._seen:
                    self._notice(one)
        if identity != self._database_id:
            self._database_id = identity
            self._wake_all()
        self._seen, self._looked_at = seen, now

    def _notice(self, new: Revocation) -> None:
        if self._looked_at is not None:
            self._metrics.revocations.labels("session" if new.tsid else "connection").inc()
        self._wake(new.owner)

    async def note_followers(self) -> None:
        """Let operators' commands know how many sidecars wait here, of which owners."""
        counts = {str(owner): len(events) for owner, events in self._waiting.items()}
        self._noted_at = int(self._clock())
        await self._followers.note(self._replica, counts, self._noted_at)

    def release(self) -> None:
        """Answer everyone who waits, and nobody waits from now on: the process is draining."""
        self._draining = True
        self._shared.clear()  # it may be older than what an answer covers
        self._wake_all()

    async def poll(self, owner: Workload, cursor: str | None) -> dict[str, Any]:
        """The answer for `owner`, as JSON members, when there is one. Raises StorageUnavailable."""
        if not self._database_id:
            self._database_id = await self._identity.get()
        revocations = self._revocations
        with self._wakened(owner) as event:
            answer, news = await self._look_up(owner, cursor, revocations.of_owner)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.poll_seconds):
                    while not (news or self._draining):
                        await event.wait()
                        event.clear()
                        answer, news = await self._look_up(owner, cursor, self._of_last_look)
        return answer

    async def _look_forever(self) -> None:
        down = False
        while True:
            self._woken.clear()
            try:
                await self.look()
                if abs(int(self._clock()) - self._noted_at) >= _NOTE_SECONDS:
                    await self.note_followers()
                down = False
            except StorageUnavailable:
                if not down:
                    _log.warning("storage_down")
                down = True
            except Exception as bug:  # noqa: BLE001 - without this task nobody would be woken
                _log.failure("look_failed", bug)
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(_LOOK_SECONDS - _PAUSE_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _look_up(
        self, owner: Workload, text: str | None, read: Read
    ) -> tuple[dict[str, Any], bool]:
        """The answer as it is now, and whether it says anything."""
        now, cursor = int(self._clock()), self._read(owner, text)
        if cursor is not None and cursor.database_id != self._database_id:
            return {"ended": [], "reset": True, "cursor": self._write(owner, now, "")}, True
        gap = cursor is None or cursor.moment < now - KEPT_SECONDS + REPEATED_SECONDS
        since = 0 if cursor is None or gap else min(cursor.moment, now) - REPEATED_SECONDS
        recorded = await read(owner, since, MAX_NAMED + 1)
        named_last = [one for one in recorded if one.ended_at >= now - REPEATED_SECONDS]
        answer: dict[str, Any] = {"cursor": self._write(owner, now, _hash(named_last))}
        if cursor is not None and not gap and _hash(recorded) == cursor.named:
            return answer | {"ended": []}, False
        if len(recorded) > MAX_NAMED:
            return answer | {"ended": [], "everything": True}, True
        answer["ended"] = [self._named(owner, one) for one in recorded]
        return (answer | {"gap": True} if gap else answer), True

    async def _of_last_look(self, owner: Workload, since: int, most: int) -> list[Revocation]:
        """As `of_owner`; many sidecars of one owner are woken together, and one read serves all."""
        if owner not in self._shared:
            start = int(self._clock()) - _SHARED_SECONDS
            read = self._revocations.of_owner(owner, start, most)
            self._shared[owner] = start, asyncio.ensure_future(read)
        start, reading = self._shared[owner]
        if since < start or len(rows := await asyncio.shield(reading)) == most:
            return await self._revocations.of_owner(owner, since, most)
        return [one for one in rows if one.ended_at >= since]

    def _named(self, owner: Workload, revocation: Revocation) -> dict[str, str]:
        """How one is named to its owner's sidecars: the handle of their exchange answers."""
        if revocation.tsid is not None:
            handle = self._audit.handle("session", str(owner), revocation.tsid)
        else:
            user_id, upstream = revocation.user_id or "", revocation.upstream or ""
            handle = self._audit.handle("connection", str(owner), user_id, upstream)
        return {"id": revocation.revocation_id, "handle": handle}

    def _read(self, owner: Workload, text: str | None) -> _Cursor | None:
        """The cursor in a poll; None for one that we cannot have given to this owner."""
        match = _CURSOR.fullmatch(text or "")
        if match is None:
            return None
        database_id, moment, named, tag = match.groups()
        cursor = _Cursor(database_id, int(moment), named)
        # Another database has another key, so only the tags of ours can be checked.
        ours = database_id == self._database_id
        return None if ours and tag != self._tag(owner, cursor) else cursor

    def _write(self, owner: Workload, moment: int, named: str) -> str:
        cursor = _Cursor(self._database_id, moment, named)
        return f"{cursor.database_id}.{moment}.{named}.{self._tag(owner, cursor)}"

    def _tag(self, owner: Workload, cursor: _Cursor) -> str:
        parts = (cursor.database_id, str(cursor.moment), cursor.named)
        return self._audit.handle("cursor", str(owner), *parts)

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

    def _wake_all(self) -> None:
        for owner in self._waiting:
            self._wake(owner)


def _hash(recorded: Sequence[Revocation]) -> str:
    if not recorded:
        return ""
    text = "\0".join(sorted(one.revocation_id for one in recorded))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
