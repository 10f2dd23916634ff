"""One SQLite file: a connection that writes, one that reads, and forward-only migrations.

Writing goes through one connection, in its own thread and under a lock, so a statement of one
task never lands in another task's transaction. Commits are durable (WAL, synchronous=FULL): what
a caller was told, a power cut cannot undo.

Reading has its own connection and sees committed data only. Its statements look single rows up
and run in the event loop itself: in WAL mode no writer makes them wait, they take microseconds,
and each hop to a thread and back would cost a hundred times that.
"""

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiosqlite

Row = sqlite3.Row

_BUSY_MILLISECONDS: Final = 5000
_MIGRATION_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class StorageUnusable(Exception):
    """The database cannot be opened or migrated; one line, for whoever starts the process."""


class _NotOurs(Exception):
    """The file is a database that this program must not touch."""


class StorageDown(Exception):
    """The database did not do what it was asked now; the caller answers 503 and grants nothing."""


class Transactional:
    """Statements inside one write transaction."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        async with self._connection.execute(sql, arguments) as cursor:
            return await cursor.fetchone()

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        async with self._connection.execute(sql, arguments) as cursor:
            return list(await cursor.fetchall())

    async def execute(self, sql: str, *arguments: object) -> int:
        """Run a statement; the number of rows it changed."""
        async with self._connection.execute(sql, arguments) as cursor:
            return int(cursor.rowcount)


class Database:
    """An open, migrated database. Made by `open_database`."""

    def __init__(self, writer: aiosqlite.Connection, reader: sqlite3.Connection) -> None:
        self._writer, self._reader = writer, reader
        self._writing = asyncio.Lock()

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        with _translated():
            row: Row | None = self._reader.execute(sql, arguments).fetchone()
            return row

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        with _translated():
            return self._reader.execute(sql, arguments).fetchall()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transactional]:
        """Run the block as one durable transaction; an exception rolls all of it back."""
        async with self._writing:
            with _translated():
                try:
                    await self._writer.execute("BEGIN IMMEDIATE")
                    yield Transactional(self._writer)
                    await self._writer.execute("COMMIT")
                except BaseException:
                    await _roll_back(self._writer)
                    raise

    async def write(self, sql: str, *arguments: object) -> int:
        """One durable statement; the number of rows it changed."""
        async with self.transaction() as transaction:
            return await transaction.execute(sql, *arguments)

    async def write_returning(self, sql: str, *arguments: object) -> Row | None:
        """One durable statement with RETURNING; its first row."""
        async with self.transaction() as transaction:
            return await transaction.fetch_one(sql, *arguments)

    async def close(self) -> None:
        self._reader.close()
        await self._writer.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Driver errors become StorageDown: no flow depends on an engine's exceptions."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageDown(type(error).__name__) from error


async def _roll_back(connection: aiosqlite.Connection) -> None:
    """Undo what is not committed.

    The statement of a cancelled waiter still runs, and this one after it: a BEGIN that had to
    wait for its lock leaves no transaction open, and a COMMIT leaves none to roll back.
    """
    with suppress(sqlite3.OperationalError):
        await connection.execute("ROLLBACK")


def database_file(url: str) -> Path:
    """The file a `sqlite:///absolute/path` URL names. Raises ValueError for any other URL."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise ValueError("only sqlite:///absolute/path is supported by this version")
    if parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise ValueError("must be sqlite:///absolute/path and nothing more")
    return Path(parts.path)


async def open_database(url: str) -> Database:
    """Open and migrate the database at `url`. Raises StorageUnusable in one clear line."""
    file = database_file(url)
    if not file.parent.is_dir():
        raise StorageUnusable(f"{file}: its folder does not exist")
    try:
        if not file.exists():
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        # The reader first: where a file cannot be opened, aiosqlite leaves a thread behind.
        reader = _open_reader(file)
        try:
            return Database(await _open_writer(file), reader)
        except BaseException:
            reader.close()
            raise
    except (sqlite3.Error, OSError, _NotOurs) as error:
        raise StorageUnusable(f"{file}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


async def _open_writer(file: Path) -> aiosqlite.Connection:
    writer = await aiosqlite.connect(file, isolation_level=None)
    try:
        writer.row_factory = sqlite3.Row
        await writer.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        await _schema_version(writer)  # before anything is written
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            await writer.execute(f"PRAGMA {pragma}")
        await _migrate(writer)
    except BaseException:
        await writer.close()
        raise
    return writer


def _open_reader(file: Path) -> sqlite3.Connection:
    reader = sqlite3.connect(file, isolation_level=None)
    reader.row_factory = sqlite3.Row
    # A reader waits for nobody in WAL mode; should it ever have to, the event loop would wait too.
    for pragma in ("busy_timeout = 0", "query_only = ON"):
        reader.execute(f"PRAGMA {pragma}")
    return reader


def migrations() -> list[tuple[int, str]]:
    """Every migration as (number, SQL), in order; numbers run from 1 without a gap."""
    folder = resources.files(__package__) / "migrations"
    found = []
    for file in folder.iterdir():
        if match := _MIGRATION_NAME.fullmatch(file.name):
            found.append((int(match[1]), file.read_text("utf-8")))
    return sorted(found)


async def _migrate(connection: aiosqlite.Connection) -> None:
    await connection.execute("BEGIN IMMEDIATE")
    try:
        at = await _schema_version(connection)
        if at is None:
            await connection.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
            await connection.execute("INSERT INTO schema_version (version) VALUES (0)")
        for number, sql in migrations()[at or 0 :]:
            for statement in _statements(sql):
                await connection.execute(statement)
            await connection.execute("UPDATE schema_version SET version = ?", (number,))
        await connection.execute("COMMIT")
    except BaseException:
        await _roll_back(connection)
        raise


async def _schema_version(connection: aiosqlite.Connection) -> int | None:
    """The last migration applied, None for a new file. Raises _NotOurs."""
    async with connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'") as cursor:
        tables = {row["name"] for row in await cursor.fetchall()}
    if not tables:
        return None
    if "schema_version" not in tables:
        raise _NotOurs(f"it holds another program's tables, such as {min(tables)}")
    async with connection.execute("SELECT version FROM schema_version") as cursor:
        row: Any = await cursor.fetchone()
    at, known = int(row["version"]) if row else 0, migrations()[-1][0]
    if at > known:
        raise _NotOurs(f"it has schema version {at}; this program knows up to {known}")
    return at


def _statements(sql: str) -> list[str]:
    without_comments = re.sub(r"--[^\n]*", "", sql)
    return [statement for part in without_comments.split(";") if (statement := part.strip())]
