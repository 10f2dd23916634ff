"""The one connection that writes to a SQLite file: transactions one after the other.

Statements run in the event loop: they touch single rows or small batches in memory, and a hop to a
thread would cost more. Only COMMIT, which waits for the disk, runs in a thread. Transactions that
are ready together are one for SQLite, each under a savepoint of its own, and have one COMMIT.
Nobody is told that a transaction succeeded, or what another one of its group wrote, before it.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from authserver.storage.contract import Row, StorageUnavailable

BUSY_SECONDS: Final = 5.0
_BUSY_PAUSE_SECONDS: Final = 0.01


class Statements:
    """Statements of the one write transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        rows = await self.fetch_all(sql, *arguments)
        return rows[0] if rows else None

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        return self._connection.execute(sql, arguments).fetchall()

    async def fetch_locked(self, sql: str, *arguments: object) -> Row | None:
        # BEGIN IMMEDIATE has locked the whole database against other writers already.
        return await self.fetch_one(sql, *arguments)

    async def execute(self, sql: str, *arguments: object) -> int:
        return self._connection.execute(sql, arguments).rowcount

    @asynccontextmanager
    async def together(self) -> AsyncIterator["Statements"]:
        yield self  # there is no round trip to save

    async def notify(self, channel: str) -> None:
        """SQLite wakes nobody."""


class SqliteWriter:
    """Runs transactions on `connection`, which waits for no lock by itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "sqlite-commit")
        self._group: asyncio.Future[None] | None = None
        self._committing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """A durable transaction; an exception undoes it. Raises StorageUnavailable."""
        failure: BaseException | None = None
        async with self._turn:
            group = self._group or await self._begin()
            try:
                self._connection.execute("SAVEPOINT one")
                yield Statements(self._connection)
                self._connection.execute("RELEASE one")
            except BaseException as error:  # noqa: BLE001 - raised again below
                self._undo(group)
                failure = _translated(error)
        if isinstance(failure, asyncio.CancelledError):
            raise failure
        # Also a transaction that gave up may have seen what others of its group wrote.
        await asyncio.shield(group)
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """After the transactions under way."""
        while self._committing:
            await asyncio.wait(self._committing)
        async with self._turn:
            self._thread.shutdown()
            self._connection.close()

    async def _begin(self) -> asyncio.Future[None]:
        """Open a group. Its commit waits its turn behind all who wait for theirs by now."""
        await self._lock_the_database()
        group = asyncio.get_running_loop().create_future()
        group.add_done_callback(asyncio.Future.exception)  # all who asked may be gone
        self._group = group
        task = asyncio.get_running_loop().create_task(self._commit(group))
        self._committing.add(task)
        task.add_done_callback(self._committing.discard)
        return group

    async def _lock_the_database(self) -> None:
        """Wait for writers of other processes, without holding up the event loop."""
        loop = asyncio.get_running_loop()
        until = loop.time() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or loop.time() > until:
                    raise _translated(error) from error
            await asyncio.sleep(_BUSY_PAUSE_SECONDS)

    async def _commit(self, group: asyncio.Future[None]) -> None:
        async with self._turn:
            if self._group is not group:
                return
            commit = asyncio.get_running_loop().run_in_executor(
                self._thread, self._connection.execute, "COMMIT"
            )
            try:
                await commit
            except sqlite3.Error as error:
                self._lose(group, error)
            else:
                self._group = None
                group.set_result(None)

    def _undo(self, group: asyncio.Future[None]) -> None:
        """Undo the transaction under way alone, unless SQLite has undone the whole group."""
        try:
            self._connection.execute("ROLLBACK TO one")
            self._connection.execute("RELEASE one")
        except sqlite3.Error as error:
            self._lose(group, error)

    def _lose(self, group: asyncio.Future[None], error: sqlite3.Error) -> None:
        """Nothing of this group will be in the file."""
        self._group = None
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        group.set_exception(_translated(error))


def _translated(error: BaseException) -> BaseException:
    """No flow depends on an engine's exceptions."""
    if isinstance(error, sqlite3.Error):
        unavailable = StorageUnavailable(type(error).__name__)
        unavailable.__cause__ = error
        return unavailable
    return error
