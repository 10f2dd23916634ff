"""Ending sessions, disconnecting upstreams and blocking users, while authservers go on working.

Each item is a short transaction of its own, so that nobody waits behind a mass of them. Some are
under way together, which SQLite commits together: after each commit of another process it reads
its pages anew. What is ended reaches the sidecars through the revocation feed.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry

from authserver.admin.authority import Authority
from authserver.admin.opened import Opened
from authserver.admin.rows import connection_rows, session_rows
from authserver.admin.selection import Selection
from authserver.connections.termination import SessionTermination
from authserver.connections.upstream_revocation import Fate, Revocations, UpstreamRevoker
from authserver.live_config import LiveConfig
from authserver.metrics import Metrics
from authserver.pacing import paced
from authserver.storage.connections import Connections
from authserver.storage.contract import Row
from authserver.storage.feed_followers import FeedFollowers
from authserver.storage.operator_events import OperatorEvents
from authserver.storage.records import ConnectionKey, Session
from authserver.storage.revocations import sessions_ended
from authserver.storage.sessions import Sessions
from authserver.storage.upstream_revocations import UpstreamRevocations
from authserver.storage.users import set_blocked
from authserver.upstream.http_client import UpstreamHttp
from chassis.spiffe_id import Workload

# A sidecar keeps nothing longer, whether or not it hears of the ending.
MAX_HELD_SECONDS: Final = 60
_MAX_PENDING: Final = 16
_TOGETHER: Final = 10
# At most 130 sessions a second, so that most of a core is left to everybody else.
_MIN_REST_SECONDS: Final = 0.075
_RESTS: Final = 4.0


@dataclass
class Report:
    """What was done. `fates` counts connections by what became of their grants upstream.

    `sidecars` of the `servers` follow the revocation feed; any other one may hold a token until
    `held_until`.
    """

    sessions: int = 0
    connections: int = 0
    users: int = 0
    fates: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    servers: set[str] = field(default_factory=set)
    sidecars: int = 0
    held_until: int = 0

    @property
    def revoked(self) -> int:
        return sum(n for (_, fate, _), n in self.fates.items() if fate == Fate.REVOKED)

    @property
    def queued(self) -> int:
        waits = (Fate.QUEUED, Fate.REGISTRATION_NOT_CONFIGURED)
        return sum(n for (_, fate, _), n in self.fates.items() if fate in waits)

    @property
    def not_revoked(self) -> int:
        return sum(self.fates.values()) - self.revoked - self.queued


class Ending:
    """The commands that end something; `opened` is the installation."""

    def __init__(self, opened: Opened, http: UpstreamHttp) -> None:
        self._opened = opened
        live = LiveConfig(opened.settings, opened.database, http, opened.clock)
        self._sessions = Sessions(opened.database)
        self._connections = Connections(opened.database, live.keyring)
        self._revoker = UpstreamRevoker(
            UpstreamRevocations(opened.database, live.keyring),
            self._connections,
            live.binding,
            opened.audit,
            Metrics(CollectorRegistry()),  # nobody asks a command for them
            opened.clock,
        )
        self._termination = SessionTermination(
            self._sessions, self._connections, self._revoker, opened.audit, opened.clock
        )
        self._pending: Revocations = []

    async def end_sessions(self, selection: Selection, authority: Authority) -> Report:
        """End every live session of the selection, and purge what nobody else holds."""
        async with self._reported(authority) as report:

            async def end(row: Row) -> Revocations:
                revocations = await self._termination.end(_session(row), "operator")
                report.sessions += 1
                return revocations

            await self._for_each(session_rows(self._opened, selection), end, report)
        return report

    async def disconnect(self, selection: Selection, authority: Authority) -> Report:
        """Delete every connection of the selection and revoke it upstream; sessions stay."""
        async with self._reported(authority) as report:

            async def disconnect(row: Row) -> Revocations:
                key = ConnectionKey(row["user_id"], _owner(row), row["upstream"])
                return await self._termination.disconnect(key)

            await self._for_each(connection_rows(self._opened, selection), disconnect, report)
        return report

    async def _for_each(
        self,
        rows: AsyncIterator[Row],
        work: Callable[[Row], Awaitable[Revocations]],
        report: Report,
    ) -> None:
        """Do the work, for some rows together."""
        together: list[Row] = []
        async for row in rows:
            together.append(row)
            if len(together) == _TOGETHER:
                async with paced(_RESTS, at_least=_MIN_REST_SECONDS):
                    await self._do_together(together, work, report)
                together = []
        await self._do_together(together, work, report)

    async def _do_together(
        self, rows: list[Row], work: Callable[[Row], Awaitable[Revocations]], report: Report
    ) -> None:
        """One that fails is raised after the others have been counted."""
        outcomes = await asyncio.gather(*map(work, rows), return_exceptions=True)
        failures = []
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failures.append(outcome)
                continue
            await self._revoking(outcome, report)
            report.servers.add(str(_owner(row)))
        if failures:
            raise failures[0]

    async def block(self, user_id: str, authority: Authority) -> Report:
        """Keep a user out. Sidecars drop what they hold; the sessions stay for an unblock."""
        async with self._reported(authority) as report:
            now = int(self._opened.clock())
            async with self._opened.database.transaction() as transaction:
                report.users = int(await set_blocked(transaction, user_id, now))
                rows = await transaction.fetch_all(
                    "SELECT tsid, owner_namespace, owner_name FROM sessions"
                    " WHERE user_id = ? AND ended_at IS NULL AND expires_at > ?",
                    user_id,
                    now,
                )
                live = [(row[0], Workload(row[1], row[2])) for row in rows]
                await sessions_ended(transaction, live, now)
            report.servers.update(str(owner) for _, owner in live)
        return report

    async def unblock(self, user_id: str, authority: Authority) -> Report:
        transaction = self._opened.database.transaction
        async with self._reported(authority) as report, transaction() as statements:
            report.users = int(await set_blocked(statements, user_id, None))
        return report

    @asynccontextmanager
    async def _reported(self, authority: Authority) -> AsyncIterator[Report]:
        """The report, and its event for the audit trail: also of what was done before a failure."""
        report = Report()
        try:
            yield report
            await self._settle(report, 0)
            followers = FeedFollowers(self._opened.database)
            report.sidecars = await followers.count(report.servers, int(self._opened.clock()))
        finally:
            now = int(self._opened.clock())
            report.held_until = now + MAX_HELD_SECONDS
            event = authority.event(
                users=report.users,
                sessions=report.sessions,
                connections=report.connections,
                revoked_upstream=report.revoked,
                queued_upstream=report.queued,
                not_revoked_upstream=report.not_revoked,
            )
            await OperatorEvents(self._opened.database).add(event, now)

    async def _revoking(self, revocations: Revocations, report: Report) -> None:
        self._pending += revocations
        if len(self._pending) > _MAX_PENDING:
            await self._settle(report, _MAX_PENDING)

    async def _settle(self, report: Report, left: int) -> None:
        """Wait until at most `left` revocations are under way, and count the others."""
        while len(self._pending) > left:
            done, _ = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
            self._pending = [task for task in self._pending if task not in done]
            for task in done:
                one = task.result()
                report.connections += 1
                report.fates[one.key.upstream, one.fate.value, one.reason] += 1


def _session(row: Row) -> Session:
    """As much of a session as its ending needs."""
    return Session(
        row["tsid"],
        row["user_id"],
        row["client_id"],
        row["resource"],
        _owner(row),
        row["scope"],
        row["created_at"],
        row["expires_at"],
    )


def _owner(row: Row) -> Workload:
    return Workload(row["owner_namespace"], row["owner_name"])
