"""Sessions and connections that ended, written in the transaction that ends them.

Sidecars follow these rows and drop what they hold (`internal/revocation_feed`). A row is kept for
ten minutes. It names a session by its `tsid`, or a connection by its user and upstream.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.records import ConnectionKey
from chassis.spiffe_id import Workload

KEPT_SECONDS: Final = 600
# PostgreSQL wakes the replicas on it; elsewhere they only look once a second.
CHANNEL: Final = "tokenward_revocations"

_COLUMNS: Final = (
    "revocation_id, owner_namespace, owner_name, tsid, user_id, upstream, ended_at, expires_at"
)
_PAGE: Final = 20  # so much is read and noticed at a time, in half a millisecond
_ONLY: Final = "only"


class Revocation(NamedTuple):
    """An ended session (`tsid`), or an ended connection (`user_id` and `upstream`)."""

    revocation_id: str
    owner: Workload
    tsid: str | None
    user_id: str | None
    upstream: str | None
    ended_at: int


async def sessions_ended(
    transaction: Transactional, sessions: Iterable[tuple[str, Workload]], now: int
) -> None:
    """Record ended sessions, each a `tsid` and its owner."""
    await _add(transaction, [(owner, tsid, None, None) for tsid, owner in sessions], now)


async def connections_ended(
    transaction: Transactional, connections: Iterable[ConnectionKey], now: int
) -> None:
    """Record connections whose tokens must not be used any more."""
    await _add(
        transaction, [(key.owner, None, key.user_id, key.upstream) for key in connections], now
    )


async def _add(
    transaction: Transactional,
    ended: Sequence[tuple[Workload, str | None, str | None, str | None]],
    now: int,
) -> None:
    for owner, tsid, user_id, upstream in ended:
        await transaction.execute(
            f"INSERT INTO revocations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            secrets.token_urlsafe(12),
            owner.namespace,
            owner.name,
            tsid,
            user_id,
            upstream,
            now,
            now + KEPT_SECONDS,
        )
    if ended:
        await transaction.notify(CHANNEL)


class KnownRevocations(Protocol):
    """What a reader of revocations has read before."""

    def __contains__(self, identifier: object) -> bool: ...

    def ended_at(self, moment: int) -> int:
        """How many it knows that ended in this Unix second."""
        ...


class Revocations:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(
        self, moment: int, *, known: KnownRevocations | None = None
    ) -> AsyncIterator[list[Revocation]]:
        """What was recorded as ended at `moment` or later, in pages, without what is `known`.

        Between pages everybody else has a turn: there may be thousands, read in the event loop.
        Rows are only added, so a second of which as many are known as it has is not read.
        """
        counted = await self._database.fetch_all(
            "SELECT expires_at, count(*) FROM revocations WHERE expires_at >= ?"
            " GROUP BY expires_at ORDER BY expires_at",
            moment + KEPT_SECONDS,
        )
        for expires_at, count in counted:
            if known is None or known.ended_at(expires_at - KEPT_SECONDS) != count:
                async for rows in self._expiring(expires_at):
                    yield [_revocation(row) for row in rows if not known or row[0] not in known]
                    await asyncio.sleep(0)

    async def _expiring(self, at: int) -> AsyncIterator[list[Row]]:
        after = ""
        while True:
            rows = await self._database.fetch_all(
                f"SELECT {_COLUMNS} FROM revocations WHERE expires_at = ? AND revocation_id > ?"
                f" ORDER BY revocation_id LIMIT {_PAGE}",
                at,
                after,
            )
            yield rows
            if len(rows) < _PAGE:
                return
            after = rows[-1]["revocation_id"]

    async def of_owner(self, owner: Workload, moment: int, most: int) -> list[Revocation]:
        """Up to `most` of an owner's, ended at `moment` or later; the latest ones."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM revocations WHERE owner_namespace = ? AND owner_name = ?"
            " AND ended_at >= ? ORDER BY ended_at DESC, revocation_id LIMIT ?",
            owner.namespace,
            owner.name,
            moment,
            most,
        )
        return [_revocation(row) for row in rows]

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` when somebody records an ending, where the engine can; until cancelled."""
        await self._database.listen(CHANNEL, heard)


class DatabaseIdentity:
    """A random name that a database keeps until it is replaced."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self) -> str:
        """The name; the first call makes it, whichever process makes that call."""
        stored = await self._stored()
        if stored is None:
            await self._database.write(
                "INSERT INTO database_identity (name, database_id) VALUES (?, ?)"
                " ON CONFLICT (name) DO NOTHING",
                _ONLY,
                secrets.token_urlsafe(12),
            )
            stored = await self._stored()
        assert stored is not None
        return stored

    async def _stored(self) -> str | None:
        row = await self._database.fetch_one(
            "SELECT database_id FROM database_identity WHERE name = ?", _ONLY
        )
        return None if row is None else str(row["database_id"])


async def replace_identity(transaction: Transactional) -> None:
    """This database stands for another one from now on: a backup was restored into it."""
    await transaction.execute("DELETE FROM database_identity")


def _revocation(row: Row) -> Revocation:
    identifier, namespace, name, tsid, user_id, upstream, ended_at, _ = row
    return Revocation(identifier, Workload(namespace, name), tsid, user_id, upstream, ended_at)
