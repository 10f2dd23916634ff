"""One SQLite file: a connection that writes and one that reads.

Writing goes through one connection, in its own thread and under a lock, so a statement of one
task never lands in another task's transaction. Commits are durable (WAL, synchronous=FULL): what
a caller was told, a power cut cannot undo.

Reading has its own connection and sees committed data only. Its statements look single rows up
and run in the event loop itself: in WAL mode no writer makes them wait, they take microseconds,
and each hop to a thread and back would cost a hundred times that.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import aiosqlite

from authserver.storage.contract import Row, StorageOpenError, StorageUnavailable
from authserver.storage.engines.migrate import expect_ours, migrate, version

_BUSY_MILLISECONDS: Final = 5000
_SWITCHES: Final = 50
_SWITCH_PAUSE_SECONDS: Final = 0.1
TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table'"


class _Statements:
    """Statements of the one write transaction."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        rows = await self.fetch_all(sql, *arguments)
        return rows[0] if rows else None

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        # One hop to the thread; a cursor of our own would take three.
        return list(await self._connection.execute_fetchall(sql, arguments))

    async def fetch_locked(self, sql: str, *arguments: object) -> Row | None:
        # BEGIN IMMEDIATE has locked the whole database against other writers already.
        return await self.fetch_one(sql, *arguments)

    async def execute(self, sql: str, *arguments: object) -> int:
        async with self._connection.execute(sql, arguments) as cursor:
            return int(cursor.rowcount)

    async def notify(self, channel: str) -> None:
        """SQLite wakes nobody."""


class SqliteDatabase:
    """Made by `open_file`."""

    def __init__(self, writer: aiosqlite.Connection, reader: sqlite3.Connection) -> None:
        self._writer, self._reader = writer, reader
        self._writing = asyncio.Lock()

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        try:
            row: Row | None = self._reader.execute(sql, arguments).fetchone()
        except sqlite3.Error as error:
            raise StorageUnavailable(type(error).__name__) from error
        return row

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        try:
            return self._reader.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise StorageUnavailable(type(error).__name__) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Statements]:
        async with self._writing:
            with _translated():
                try:
                    await self._writer.execute("BEGIN IMMEDIATE")
                    yield _Statements(self._writer)
                    await self._writer.execute("COMMIT")
                except BaseException:
                    await _roll_back(self._writer)
                    raise

    async def write(self, sql: str, *arguments: object) -> int:
        async with self.transaction() as transaction:
            return await transaction.execute(sql, *arguments)

    async def write_returning(self, sql: str, *arguments: object) -> Row | None:
        async with self.transaction() as transaction:
            return await transaction.fetch_one(sql, *arguments)

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self._reader.close()
        await self._writer.close()


async def open_file(file: Path, *, migrates: bool = True) -> SqliteDatabase:
    """Open and migrate the database in `file`. Raises StorageOpenError in one clear line."""
    try:
        _make(file, migrates)
        # The reader first: where a file cannot be opened, aiosqlite leaves a thread behind.
        reader = _open_reader(file)
        try:
            return SqliteDatabase(await _open_writer(file, migrates), reader)
        except BaseException:
            reader.close()
            raise
    except StorageOpenError as unusable:
        raise StorageOpenError(f"{file}: {unusable}") from None
    except (sqlite3.Error, OSError) as error:
        raise StorageOpenError(f"{file}: {_reason(error)}") from error


def _make(file: Path, may_make: bool) -> None:
    """An empty file for this user alone, if there is none yet."""
    if not file.parent.is_dir():
        raise StorageOpenError("its folder does not exist")
    if not file.exists():
        if not may_make:
            raise StorageOpenError("it does not exist yet")
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


@contextmanager
def _translated() -> Iterator[None]:
    """Driver errors become StorageUnavailable: no flow depends on an engine's exceptions."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageUnavailable(type(error).__name__) from error


async def _roll_back(connection: aiosqlite.Connection) -> None:
    """Undo what is not committed.

    The statement of a cancelled waiter still runs, and this one after it: a BEGIN that had to
    wait for its lock leaves no transaction open, and a COMMIT leaves none to roll back.
    """
    with suppress(sqlite3.OperationalError):
        await connection.execute("ROLLBACK")


async def _migrate(connection: aiosqlite.Connection) -> None:
    await connection.execute("BEGIN IMMEDIATE")
    try:
        await migrate(_Statements(connection), TABLES)
        await connection.execute("COMMIT")
    except BaseException:
        await _roll_back(connection)
        raise


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


async def _open_writer(file: Path, migrates: bool) -> aiosqlite.Connection:
    writer = await aiosqlite.connect(file, isolation_level=None)
    try:
        writer.row_factory = sqlite3.Row
        await writer.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        # Before anything is written.
        await (version if migrates else expect_ours)(_Statements(writer), TABLES)
        await _switch_to_wal(writer)
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            await writer.execute(f"PRAGMA {pragma}")
        if migrates:
            await _migrate(writer)
    except BaseException:
        await writer.close()
        raise
    return writer


async def _switch_to_wal(writer: aiosqlite.Connection) -> None:
    """Where others open a fresh file too, SQLite gives this up at once, whatever it may wait."""
    for left in reversed(range(_SWITCHES)):
        try:
            await writer.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or not left:
                raise
        await asyncio.sleep(_SWITCH_PAUSE_SECONDS)


def _open_reader(file: Path) -> sqlite3.Connection:
    reader = sqlite3.connect(file, isolation_level=None)
    reader.row_factory = sqlite3.Row
    # A reader waits for nobody in WAL mode; should it ever have to, the event loop would wait too.
    try:
        for pragma in ("busy_timeout = 0", "query_only = ON"):
            reader.execute(f"PRAGMA {pragma}")
    except BaseException:
        reader.close()
        raise
    return reader
