"""Transactions of one SQLite file: alone in what they do and undo, together in their commit."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authserver.storage.contract import StorageUnavailable
from authserver.storage.engines.sqlite import open_file
from authserver.storage.engines.sqlite_writer import SqliteWriter


class Connection(sqlite3.Connection):
    """Counts commits, and fails at what it is told to."""

    commits = 0
    broken = ""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if self.broken and sql.startswith(self.broken):
            raise sqlite3.OperationalError("disk I/O error")
        self.commits += sql == "COMMIT"
        return super().execute(sql, *arguments)


def opened(file: Path) -> Connection:
    connection = sqlite3.connect(
        file, isolation_level=None, check_same_thread=False, factory=Connection
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA busy_timeout = 0")
    assert isinstance(connection, Connection)
    return connection


@pytest.fixture
async def connection(tmp_path: Path) -> Connection:
    made = opened(tmp_path / "a.db")
    made.execute("CREATE TABLE notes (note TEXT UNIQUE)")
    return made


@pytest.fixture
async def writer(connection: Connection) -> AsyncIterator[SqliteWriter]:
    made = SqliteWriter(connection)
    yield made
    await made.close()


def kept(tmp_path: Path) -> list[str]:
    """What another process sees."""
    reader = opened(tmp_path / "a.db")
    rows = reader.execute("SELECT note FROM notes ORDER BY note").fetchall()
    reader.close()
    return [row[0] for row in rows]


async def write(writer: SqliteWriter, note: str) -> str:
    async with writer.transaction() as transaction:
        await transaction.execute("INSERT INTO notes VALUES (?)", note)
    return note


async def test_transactions_that_are_ready_together_have_one_commit(
    writer: SqliteWriter, connection: Connection, tmp_path: Path
) -> None:
    notes = [f"{number:02d}" for number in range(20)]
    assert await asyncio.gather(*(write(writer, note) for note in notes)) == notes
    assert kept(tmp_path) == notes
    assert connection.commits == 1
    await write(writer, "later")
    assert connection.commits == 2


async def test_nobody_is_told_before_the_commit(
    writer: SqliteWriter, connection: Connection, tmp_path: Path
) -> None:
    written = asyncio.ensure_future(write(writer, "a"))
    while not connection.commits:
        assert not written.done()
        assert kept(tmp_path) == []
        await asyncio.sleep(0)
    await written
    assert kept(tmp_path) == ["a"]


async def test_one_that_fails_undoes_itself_alone(writer: SqliteWriter, tmp_path: Path) -> None:
    async def fail() -> None:
        async with writer.transaction() as transaction:
            await transaction.execute("INSERT INTO notes VALUES ('failed')")
            raise LookupError

    found = await asyncio.gather(
        write(writer, "a"), fail(), write(writer, "a"), write(writer, "b"), return_exceptions=True
    )
    assert [type(each) for each in found] == [str, LookupError, StorageUnavailable, str]
    assert kept(tmp_path) == ["a", "b"]


async def test_a_commit_that_fails_is_the_failure_of_all_who_took_part(
    writer: SqliteWriter, connection: Connection, tmp_path: Path
) -> None:
    async def look_and_give_up() -> None:
        """What it saw of the others will not have been."""
        async with writer.transaction() as transaction:
            assert await transaction.fetch_one("SELECT 1 FROM notes WHERE note = 'a'")
            raise LookupError

    connection.broken = "COMMIT"
    found = await asyncio.gather(
        write(writer, "a"), look_and_give_up(), write(writer, "b"), return_exceptions=True
    )
    assert [type(each) for each in found] == [StorageUnavailable] * 3
    assert kept(tmp_path) == []
    connection.broken = ""
    await write(writer, "c")
    assert kept(tmp_path) == ["c"]


async def test_where_sqlite_undoes_everything_nobody_of_the_group_succeeds(
    writer: SqliteWriter, connection: Connection, tmp_path: Path
) -> None:
    """As it does when the disk is full."""

    async def fill_the_disk() -> None:
        async with writer.transaction() as transaction:
            await transaction.execute("INSERT OR ROLLBACK INTO notes VALUES ('a')")

    found = await asyncio.gather(
        write(writer, "a"), fill_the_disk(), write(writer, "b"), return_exceptions=True
    )
    assert [type(each) for each in found] == [StorageUnavailable, StorageUnavailable, str]
    assert kept(tmp_path) == ["b"]


async def test_a_caller_that_is_cancelled_leaves_its_group_alone(
    writer: SqliteWriter, connection: Connection, tmp_path: Path
) -> None:
    inside = asyncio.Event()

    async def stall() -> None:
        async with writer.transaction() as transaction:
            await transaction.execute("INSERT INTO notes VALUES ('stalled')")
            inside.set()
            await asyncio.Event().wait()

    first = asyncio.ensure_future(write(writer, "a"))
    stalled = asyncio.ensure_future(stall())
    behind = asyncio.ensure_future(write(writer, "b"))
    waiting = asyncio.ensure_future(write(writer, "never"))
    await inside.wait()
    waiting.cancel()
    stalled.cancel()
    await asyncio.gather(first, behind)
    assert kept(tmp_path) == ["a", "b"]
    assert stalled.cancelled()


async def test_one_that_is_cancelled_while_it_commits_is_committed_all_the_same(
    writer: SqliteWriter, connection: Connection, tmp_path: Path
) -> None:
    written = asyncio.ensure_future(write(writer, "a"))
    while not connection.commits:
        await asyncio.sleep(0)
    written.cancel()
    await write(writer, "b")
    assert kept(tmp_path) == ["a", "b"]


async def test_a_writer_of_another_process_is_waited_for_without_stopping_the_loop(
    writer: SqliteWriter, tmp_path: Path
) -> None:
    other = opened(tmp_path / "a.db")
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(write(writer, "a"))
    while not writer._turn.locked():
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    other.execute("COMMIT")
    await waiting
    other.close()
    assert kept(tmp_path) == ["a"]


async def test_closing_waits_for_transactions_under_way(
    connection: Connection, tmp_path: Path
) -> None:
    writer = SqliteWriter(connection)
    written = asyncio.ensure_future(write(writer, "a"))
    await asyncio.sleep(0)
    await writer.close()
    await written
    assert kept(tmp_path) == ["a"]


async def test_no_temporary_file_is_wanted(tmp_path: Path) -> None:
    """Nothing but the volume of the database is writable in our pods."""
    database = await open_file(tmp_path / "a.db")
    async with database.transaction() as transaction:
        await transaction.execute("CREATE TABLE long (note TEXT UNIQUE)")
        for number in range(300):
            note = f"{number}{'x' * 1000}"
            await transaction.execute("INSERT INTO long VALUES (?)", note)
    async with database.transaction() as transaction:
        # To undo a statement that fails halfway, SQLite keeps what the pages were.
        await transaction.execute("UPDATE long SET note = note || 'y'")
        assert [name for name in open_files() if "etilqs" in name] == []
    await database.close()


def open_files() -> list[str]:
    """Names of this process' open files, those without a folder entry too."""
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return names
