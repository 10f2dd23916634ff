"""The engines themselves: schema versions, outages, and URLs that are refused."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from authserver.storage.contract import Database, StorageOpenError, StorageUnavailable
from authserver.storage.engines.migrate import migrate, migrations
from authserver.storage.engines.open import open_database
from authserver.storage.engines.url import PostgresqlLocation, SqliteLocation, read_location
from tests.support.postgresql import PostgresqlServer, starts_postgresql
from tests.support.storage_fixtures import Place, Store, together

NEWEST = migrations()[-1][0]


async def test_replicas_that_start_together_migrate_once(place: Place) -> None:
    opened = await together(place.open() for _ in range(4))
    rows = await opened[0].fetch_all("SELECT version FROM schema_version")
    assert [row["version"] for row in rows] == [NEWEST]
    for database in opened:
        await database.close()


async def test_a_database_newer_than_the_program_is_refused(
    place: Place, database: Database
) -> None:
    await database.write("UPDATE schema_version SET version = 99")
    with pytest.raises(
        StorageOpenError, match=f"schema version 99; this program knows up to {NEWEST}"
    ):
        await place.open()


async def test_every_earlier_version_is_brought_up(place: Place, database: Database) -> None:
    later = [
        *migrations(),
        (NEWEST + 1, "CREATE TABLE two (a BIGINT);"),
        (NEWEST + 2, "INSERT INTO two VALUES (7)"),
    ]
    async with database.transaction() as transaction:
        await migrate(transaction, place.tables, later)
    async with database.transaction() as transaction:
        await migrate(transaction, place.tables, later)
    assert [row["a"] for row in await database.fetch_all("SELECT a FROM two")] == [7]


async def test_a_migration_that_fails_leaves_the_version_before_it(
    place: Place, database: Database
) -> None:
    broken = [
        *migrations(),
        (NEWEST + 1, "CREATE TABLE two (a BIGINT); INSERT INTO nowhere VALUES (1)"),
    ]
    with pytest.raises(StorageUnavailable):
        async with database.transaction() as transaction:
            await migrate(transaction, place.tables, broken)
    row = await database.fetch_one("SELECT version FROM schema_version")
    assert row is not None
    assert row["version"] == NEWEST
    with pytest.raises(StorageUnavailable):
        await database.fetch_one("SELECT * FROM two")


async def test_an_exception_rolls_the_whole_transaction_back(database: Database) -> None:
    async def insert_and_fail() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(
                "INSERT INTO clients (client_id, metadata, created_at) VALUES ('c', '{}', 0)"
            )
            raise KeyError

    with pytest.raises(KeyError):
        await insert_and_fail()
    assert await database.fetch_one("SELECT * FROM clients") is None


async def test_a_transaction_cancelled_in_the_middle_leaves_nothing_and_blocks_nobody(
    database: Database,
) -> None:
    async def insert() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(
                "INSERT INTO clients (client_id, metadata, created_at) VALUES ('c', '{}', 0)"
            )
            await asyncio.Event().wait()

    task = asyncio.create_task(insert())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await database.write("UPDATE clients SET created_at = 1") == 0


@starts_postgresql
async def test_postgresql_comes_back_without_a_restart_of_ours() -> None:
    with PostgresqlServer("fsync = off") as server:
        password = server.password
        database = await open_database(await server.create_database(), lambda: password)
        store = Store(database)
        found = await store.connected()
        await asyncio.to_thread(server.kill)
        with suppress(StorageUnavailable):
            while True:  # a backend goes on until it notices
                await store.connections.get(found.key)
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                await store.connections.get(found.key)
            with pytest.raises(StorageUnavailable):
                await store.sign_in()
        assert time.monotonic() - began < 15  # six times the wait for a server that is silent is 30
        await asyncio.to_thread(server.start)
        assert await store.connections.get(found.key) == found
        await store.sign_in()
        await database.close()


@starts_postgresql
async def test_a_statement_that_takes_too_long_is_storage_down(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authserver.storage.engines import postgresql_session as session

    monkeypatch.setitem(session._SETTINGS, "statement_timeout", "200ms")
    password = postgresql.password
    database = await open_database(await postgresql.create_database(), lambda: password)
    with pytest.raises(StorageUnavailable):
        await database.fetch_one("SELECT pg_sleep(5)")
    assert await database.fetch_one("SELECT 1 AS one") is not None
    await database.close()


@starts_postgresql
async def test_commits_are_durable_whatever_the_server_is_set_to(
    postgresql: PostgresqlServer,
) -> None:
    url = await postgresql.create_database()
    name = url.rpartition("/")[2]
    await postgresql.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    password = postgresql.password
    database = await open_database(url, lambda: password)
    row = await database.fetch_one("SELECT current_setting('synchronous_commit') AS it")
    assert row is not None
    assert row["it"] == "on"
    await database.close()


@starts_postgresql
@pytest.mark.parametrize(
    ("user", "password", "database", "problem"),
    [
        ("tokenward", "wrong", "postgres", "refuses the user or the password"),
        ("tokenward", None, "nowhere", "does not exist"),
    ],
)
async def test_what_is_wrong_with_the_server_is_said_in_one_line(
    postgresql: PostgresqlServer, user: str, password: str | None, database: str, problem: str
) -> None:
    url = f"postgresql://{user}@127.0.0.1:{postgresql.port}/{database}"
    right = password or postgresql.password
    with pytest.raises(StorageOpenError, match=problem) as refused:
        await open_database(url, lambda: right)
    assert "wrong" not in str(refused.value)


async def test_a_server_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(StorageOpenError, match=r"^postgresql://u@127\.0\.0\.1:1/db: "):
        await open_database("postgresql://u@127.0.0.1:1/db")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://h/d", "must be sqlite"),
        ("sqlite:relative.db", "must be sqlite:///"),
        ("sqlite:///x?mode=memory", "nothing more"),
        ("postgresql://u:canary@127.0.0.1/d", "no password"),
        ("postgresql://127.0.0.1/d", "must be sqlite"),
        ("postgresql://u@127.0.0.1", "must be sqlite"),
        ("postgresql://u@127.0.0.1/d?options=-c", "sslmode, sslrootcert, prepared_statements only"),
        ("postgresql://u@127.0.0.1/d?prepared_statements=no", "true or false"),
        ("postgresql://u@db.example.com/d", "must say sslmode"),
        ("postgresql://u@db.example.com/d?sslmode=require", "must say sslmode"),
        ("postgresql://u@db.example.com/d?sslmode=verify-full", "needs sslrootcert"),
    ],
)
def test_a_url_is_refused_with_what_is_wrong_and_without_itself(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        read_location(url)
    assert "canary" not in str(refused.value)


def test_locations_that_are_fine() -> None:
    assert read_location("sqlite:///a/b.db") == SqliteLocation(Path("/a/b.db"))
    assert read_location("postgresql://u@127.0.0.1/d") == PostgresqlLocation(
        "127.0.0.1", 5432, "u", "d", None, False
    )
    tls = "postgresql://u@db.example.com:6432/d?sslmode=verify-full&sslrootcert=/ca.pem"
    assert read_location(tls) == PostgresqlLocation(
        "db.example.com", 6432, "u", "d", Path("/ca.pem"), True
    )
    pooled = read_location("postgresql://u@127.0.0.1/d?prepared_statements=false")
    assert isinstance(pooled, PostgresqlLocation)
    assert not pooled.prepared_statements
