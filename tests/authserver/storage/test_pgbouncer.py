"""PostgreSQL behind a pooler, and connections that lose what was prepared on them."""

import asyncio

import pytest

from authserver.storage.contract import Database, StorageOpenError, StorageUnavailable
from authserver.storage.engines.open import open_database
from tests.support.pgbouncer import (
    give_role_settings,
    needs_pgbouncer,
    new_database,
    pgbouncer,
)
from tests.support.postgresql import USER, PostgresqlServer, starts_postgresql
from tests.support.storage_fixtures import Store, grant

SETTINGS = {
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "20s",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
}


UNPREPARED = "?prepared_statements=false"


async def _opened(server: PostgresqlServer, port: int) -> Database:
    return await _opened_at(server, port, await new_database(server))


async def _opened_at(server: PostgresqlServer, port: int, name: str, options: str = "") -> Database:
    return await open_database(
        f"postgresql://{USER}@127.0.0.1:{port}/{name}{options}", lambda: server.password
    )


async def _settings(database: Database) -> dict[str, object]:
    rows = [await database.fetch_one(f"SELECT current_setting('{name}')") for name in SETTINGS]
    return {name: row[0] for name, row in zip(SETTINGS, rows, strict=True) if row is not None}


@needs_pgbouncer
@starts_postgresql
async def test_it_starts_behind_a_pooler_and_keeps_its_time_limits(
    postgresql: PostgresqlServer,
) -> None:
    with pgbouncer(postgresql, "session") as port:
        database = await _opened(postgresql, port)
        assert await _settings(database) == SETTINGS
        store = Store(database)
        session, _ = await store.sign_in()
        assert await store.sessions.get(session.tsid) == session
        await database.close()


@needs_pgbouncer
@starts_postgresql
async def test_a_pooler_that_cannot_keep_a_transaction_is_a_clear_fault(
    postgresql: PostgresqlServer,
) -> None:
    with (
        pgbouncer(postgresql, "statement") as port,
        pytest.raises(StorageOpenError, match="server or pooler closed the connection"),
    ):
        await _opened(postgresql, port)


@needs_pgbouncer
@starts_postgresql
async def test_a_pooler_that_shares_connections_serves_statements_that_are_not_prepared(
    postgresql: PostgresqlServer,
) -> None:
    name = await new_database(postgresql)
    await give_role_settings(postgresql, name)
    with pgbouncer(postgresql, "transaction") as port:
        database = await _opened_at(postgresql, port, name, UNPREPARED)
        store = Store(database)

        async def sign_in_and_read(user: str) -> None:
            for _ in range(5):
                session, _ = await store.sign_in(grant(user))
                assert await store.sessions.get(session.tsid) == session
            assert await _settings(database) == SETTINGS

        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(sign_in_and_read(f"user-{number}"))
        await database.close()


@needs_pgbouncer
@starts_postgresql
async def test_prepared_statements_that_a_pooler_loses_are_a_clear_fault(
    postgresql: PostgresqlServer,
) -> None:
    name = await new_database(postgresql)
    await give_role_settings(postgresql, name)
    with pgbouncer(postgresql, "transaction") as port:
        for _ in range(2):  # the second time, all server connections know statements of ours
            with pytest.raises(StorageOpenError, match="needs prepared_statements=false"):
                await _opened_at(postgresql, port, name)


@needs_pgbouncer
@starts_postgresql
async def test_settings_that_a_pooler_loses_are_a_clear_fault(postgresql: PostgresqlServer) -> None:
    name = await new_database(postgresql)
    with (
        pgbouncer(postgresql, "transaction") as port,
        pytest.raises(StorageOpenError, match="or the role must have this setting"),
    ):
        await _opened_at(postgresql, port, name, UNPREPARED)


@needs_pgbouncer
@starts_postgresql
async def test_a_pooler_without_a_second_connection_refuses_nobody(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authserver.storage.engines import postgresql_session as session

    monkeypatch.setattr(session, "_SECOND_CONNECTION_SECONDS", 0.2)
    with pgbouncer(postgresql, "session", "default_pool_size = 1") as port:
        database = await _opened(postgresql, port)
        assert await database.fetch_one("SELECT 1 AS one") is not None
        await database.close()


@starts_postgresql
async def test_the_time_limits_hold_without_a_pooler(postgresql: PostgresqlServer) -> None:
    database = await _opened(postgresql, postgresql.port)
    assert await _settings(database) == SETTINGS
    await database.close()


@starts_postgresql
async def test_a_connection_whose_statements_the_server_forgot_is_replaced(
    postgresql: PostgresqlServer,
) -> None:
    database = await _opened(postgresql, postgresql.port)
    for _ in range(2):
        assert await database.fetch_one("SELECT 1 AS one") is not None
        await database.write("DEALLOCATE ALL")
        with pytest.raises(StorageUnavailable, match="InvalidSQLStatementNameError"):
            await database.fetch_one("SELECT 1 AS one")
    assert await database.fetch_one("SELECT 1 AS one") is not None
    await database.close()


@starts_postgresql
async def test_a_parameter_that_is_refused_is_named(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authserver.storage.engines import postgresql_session as session

    monkeypatch.setitem(session._SETTINGS, "no_such_parameter", "1")
    with pytest.raises(StorageOpenError, match="does not accept the parameter no_such_parameter"):
        await _opened(postgresql, postgresql.port)


@starts_postgresql
async def test_a_setting_that_is_not_in_force_is_named(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server writes a minute as 1min, so here what it says differs from what was set."""
    from authserver.storage.engines import postgresql_session as session

    monkeypatch.setitem(session._SETTINGS, "statement_timeout", "60s")
    with pytest.raises(StorageOpenError, match="statement_timeout is 1min and not 60s"):
        await _opened(postgresql, postgresql.port)


@starts_postgresql
async def test_a_column_that_a_newer_release_adds_breaks_no_statement_of_this_one(
    postgresql: PostgresqlServer,
) -> None:
    """D14: in a rolling upgrade each connection of the older replica failed once."""
    from authserver.handles import hash_of
    from tests.support.storage_fixtures import NOW, new_refresh_token

    database = await _opened(postgresql, postgresql.port)
    store = Store(database)

    async def use_code_and_rotate() -> None:
        _, code_hash = await store.sign_in()
        assert await store.codes.get(code_hash, NOW) is not None
        first = new_refresh_token()
        await store.codes.redeem(
            code_hash, now=NOW, session_expires_at=NOW + 86400, refresh_token=first
        )
        rotated = await store.refresh_tokens.rotate(
            hash_of(first.token), new_refresh_token(), now=NOW, grace=30
        )
        assert rotated is not None

    await use_code_and_rotate()
    for table in ("codes", "refresh_tokens", "sessions", "connections", "clients", "users"):
        await database.write(f"ALTER TABLE {table} ADD COLUMN of_the_next_release TEXT")
    await use_code_and_rotate()
    await database.close()
