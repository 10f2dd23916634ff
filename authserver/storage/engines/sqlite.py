"""One SQLite file: a connection that writes and one that reads.

Writing goes through one connection, one transaction after the other (`sqlite_writer`). Commits are
durable (WAL, synchronous=FULL): what a caller was told, a power cut cannot undo.

Reading has its own connection and sees committed data only. Its statements look single rows up
and run in the event loop itself: in WAL mode no writer makes them wait, they take microseconds,
and each hop to a thread and back would cost a hundred times that.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from authserver.storage.contract import Row, StorageOpenError, StorageUnavailable
from authserver.storage.engines.migrate import expect_ours, migrate, version
from authserver.storage.engines.sqlite_writer import BUSY_SECONDS, SqliteWriter, Statements

_SWITCHES: Final = 50
_SWITCH_PAUSE_SECONDS: Final = 0.1
# In our pods there is no folder for them, and what they would hold belongs on no other disk.
_NO_TEMPORARY_FILES: Final = "PRAGMA temp_store = MEMORY"
TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table'"


class SqliteDatabase:
    """Made by `open_file`."""

    def __init__(self, writer: SqliteWriter, reader: sqlite3.Connection) -> None:
        self._writer, self._reader = writer, reader

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        try:
            row: Row | None = self._reader.execute(sql, arguments).fetchone()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise StorageUnavailable(type(error).__name__) from error
        return row

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        try:
            return self._reader.execute(sql, arguments).fetchall()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise StorageUnavailable(type(error).__name__) from error

    look_up = fetch_one

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        return self._writer.transaction()

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
        reader = _open_reader(file)
        try:
            return SqliteDatabase(await _open_writer(file, migrates), reader)
        except BaseException:
            reader.close()
            raise
    except StorageOpenError as unusable:
        raise StorageOpenError(f"{file}: {unusable}") from None
    except (sqlite3.Error, OSError, StorageUnavailable) as error:
        cause = error.__cause__ if isinstance(error, StorageUnavailable) else error
        raise StorageOpenError(f"{file}: {_reason(cause or error)}") from error


def _make(file: Path, may_make: bool) -> None:
    """An empty file for this user alone, if there is none yet."""
    if not file.parent.is_dir():
        raise StorageOpenError("its folder does not exist")
    if not file.exists():
        if not may_make:
            raise StorageOpenError("it does not exist yet")
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


async def _open_writer(file: Path, migrates: bool) -> SqliteWriter:
    # Used in the event loop and, while that waits, in a thread.
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
        connection.execute(_NO_TEMPORARY_FILES)
        # Before anything is written.
        await (version if migrates else expect_ours)(Statements(connection), TABLES)
        await _switch_to_wal(connection)
        for pragma in ("synchronous = FULL", "foreign_keys = ON", "busy_timeout = 0"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    writer = SqliteWriter(connection)
    try:
        if migrates:
            async with writer.transaction() as transaction:
                await migrate(transaction, TABLES)
    except BaseException:
        await writer.close()
        raise
    return writer


async def _switch_to_wal(writer: sqlite3.Connection) -> None:
    """Where others open a fresh file too, SQLite gives this up at once, whatever it may wait."""
    for left in reversed(range(_SWITCHES)):
        try:
            writer.execute("PRAGMA journal_mode = WAL")
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
        reader.execute(_NO_TEMPORARY_FILES)
        for pragma in ("busy_timeout = 0", "query_only = ON"):
            reader.execute(f"PRAGMA {pragma}")
    except BaseException:
        reader.close()
        raise
    return reader
