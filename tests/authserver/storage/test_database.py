"""The database file: opened by several, migrated as a whole, and never left in a transaction."""

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from authserver.storage.contract import StorageOpenError, StorageUnavailable
from authserver.storage.engines.migrate import migrations
from authserver.storage.engines.open import open_database
from authserver.storage.engines.url import read_location
from tests.support.database_file import count, sql
from tests.support.storage_files import stores


def url(folder: Path) -> str:
    return f"sqlite://{folder}/tokenward.db"


NEWEST = migrations()[-1][0]
ADD = "INSERT INTO users (user_id, upstream_issuer, subject, created_at) VALUES (?, 'i', ?, 0)"


async def test_a_fresh_file_gets_the_newest_schema_and_is_private(tmp_path: Path) -> None:
    async with stores(tmp_path):
        assert await sql(tmp_path, "SELECT version FROM schema_version") == [(NEWEST,)]
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_several_may_open_a_fresh_file_at_once(tmp_path: Path) -> None:
    opened = await asyncio.gather(*(open_database(url(tmp_path)) for _ in range(8)))
    for database in opened:
        await database.close()
    assert await sql(tmp_path, "SELECT version FROM schema_version") == [(NEWEST,)]


async def test_a_fresh_file_that_another_writes_to_is_waited_for(tmp_path: Path) -> None:
    lock = sqlite3.connect(tmp_path / "tokenward.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    asyncio.get_running_loop().call_later(0.1, lock.close)
    await (await open_database(url(tmp_path))).close()


async def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        database = await open_database(url(tmp_path))
        await database.write(ADD, name, name)
        await database.close()
    assert await count(tmp_path, "users") == 2


async def test_a_schema_newer_than_the_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with stores(tmp_path):
        pass
    await sql(tmp_path, "UPDATE schema_version SET version = ?", NEWEST + 1)
    with pytest.raises(
        StorageOpenError, match=f"schema version {NEWEST + 1}.*knows up to {NEWEST}"
    ):
        await open_database(url(tmp_path))
    assert await sql(tmp_path, "SELECT version FROM schema_version") == [(NEWEST + 1,)]


async def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    await sql(tmp_path, "CREATE TABLE schema_version (version BIGINT NOT NULL)")
    await sql(tmp_path, "INSERT INTO schema_version VALUES (0)")
    await sql(tmp_path, "CREATE TABLE connections (in_the_way INTEGER)")
    for _ in range(2):
        with pytest.raises(StorageOpenError, match="connections"):
            await open_database(url(tmp_path))
        tables = await sql(tmp_path, "SELECT name FROM sqlite_master WHERE type = 'table'")
        assert tables == [("schema_version",), ("connections",)]
    await sql(tmp_path, "DROP TABLE connections")
    await (await open_database(url(tmp_path))).close()
    assert await sql(tmp_path, "SELECT version FROM schema_version") == [(NEWEST,)]


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [number for number, _ in migrations()] == list(range(1, NEWEST + 1))


@pytest.mark.parametrize("content", [b"this is no database" * 100])
async def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenward.db").write_bytes(content)
    with pytest.raises(StorageOpenError, match=r"tokenward\.db: .*not a database") as refused:
        await open_database(url(tmp_path))
    assert "\n" not in str(refused.value)
    assert (tmp_path / "tokenward.db").read_bytes() == content


async def test_a_folder_that_is_missing_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StorageOpenError, match="folder does not exist"):
        await open_database(f"sqlite://{tmp_path}/missing/tokenward.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "tokenward.db", "sqlite://host/x", "sqlite:x", "sqlite:///x?mode=ro", "sqlite:///x#f",
     "file:///x"],
)  # fmt: skip
def test_a_url_names_an_absolute_file_or_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be sqlite:///absolute/path"):
        read_location(text)


async def test_a_block_that_fails_is_rolled_back_and_the_next_one_works(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):

        async def fail() -> None:
            async with store.database.transaction() as transaction:
                await transaction.execute(ADD, "a", "a")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        assert await store.database.write(ADD, "b", "b") == 1
        assert await sql(tmp_path, "SELECT user_id FROM users") == [("b",)]


async def test_a_statement_that_fails_is_storage_that_is_down(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        for statement in ("INSERT INTO nowhere VALUES (1)", "nonsense"):
            with pytest.raises(StorageUnavailable):
                await store.database.write(statement)
            with pytest.raises(StorageUnavailable):
                await store.database.fetch_one(statement)
        assert await store.database.write(ADD, "a", "a") == 1


async def test_tasks_do_not_see_into_each_others_transactions(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, other):
        block = store.database.transaction()
        transaction = await block.__aenter__()
        await transaction.execute(ADD, "a", "a")
        for reader in (store, other):
            assert await reader.database.fetch_all("SELECT * FROM users") == []
        waiting = asyncio.create_task(store.database.write(ADD, "b", "b"))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        await block.__aexit__(None, None, None)
        await waiting
        assert len(await other.database.fetch_all("SELECT * FROM users")) == 2


@pytest.mark.parametrize("cancelled_after", ["BEGIN was asked", "a statement"])
async def test_a_task_cancelled_in_a_transaction_leaves_none_open(
    tmp_path: Path, cancelled_after: str
) -> None:
    """Another process holds the lock, so that even BEGIN has to wait; then its waiter goes away."""
    file = tmp_path / "tokenward.db"
    async with stores(tmp_path) as (store, _):
        with closing(sqlite3.connect(file, isolation_level=None)) as lock:
            begun = asyncio.Event()

            async def write() -> None:
                async with store.database.transaction() as transaction:
                    await transaction.execute(ADD, "a", "a")
                    begun.set()
                    await asyncio.Event().wait()

            if cancelled_after == "BEGIN was asked":
                lock.execute("BEGIN IMMEDIATE")
                writing = asyncio.create_task(write())
                await asyncio.wait({writing}, timeout=0.05)
            else:
                writing = asyncio.create_task(write())
                await begun.wait()
            writing.cancel()
            asyncio.get_running_loop().call_later(0.05, lock.close)
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert await store.database.write(ADD, "b", "b") == 1
            assert await sql(tmp_path, "SELECT user_id FROM users") == [("b",)]


async def test_commits_are_durable(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _), store.database.transaction() as transaction:
        for pragma, value in (("synchronous", 2), ("foreign_keys", 1), ("journal_mode", "wal")):
            row = await transaction.fetch_one(f"PRAGMA {pragma}")
            assert row is not None
            assert row[pragma] == value
