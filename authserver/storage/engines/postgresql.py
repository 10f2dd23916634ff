"""PostgreSQL, for more than one replica: a pool of connections.

A connection that breaks raises StorageUnavailable in the statement that used it. The next statement
opens a new one, so an outage ends without a restart. Nothing is read from the environment.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from itertools import count
from typing import Any, Final

import asyncpg

from authserver.storage.contract import Password, Row, StorageOpenError, StorageUnavailable
from authserver.storage.engines.migrate import expect_ours, migrate
from authserver.storage.engines.postgresql_lookups import Lookups
from authserver.storage.engines.postgresql_session import (
    FORGOTTEN_STATEMENT,
    STATEMENT_SECONDS,
    expect_sessions,
    set_session,
)
from authserver.storage.engines.url import PostgresqlLocation

_MAX_CONNECTIONS: Final = 10
_CONNECT_SECONDS: Final = 5.0
# The server gives a statement up first; the client's limit is for a server that says nothing.
_ANSWER_SECONDS: Final = STATEMENT_SECONDS + 2.0
_LISTEN_AGAIN_SECONDS: Final = 5.0
# Any number will do, as long as every Tokenward process uses the same.
_MIGRATION_LOCK: Final = 0x746F6B656E77
TABLES: Final = "SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()"
_FAILURES: Final = (
    StorageOpenError,  # of a new connection whose session is not as it must be
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Given back to the pool as it is: our statements leave nothing behind in a session."""

    def get_reset_query(self) -> str:
        return ""


_UNSUPPORTED_PARAMETER: Final = re.compile(
    r"(?:unsupported startup|unrecognized configuration) parameter:? \"?([a-z_]{1,64})"
)


class _Statements:
    """Statements of one transaction on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        row: Row | None = await self._connection.fetchrow(_numbered(sql), *arguments)
        return row

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        return list(await self._connection.fetch(_numbered(sql), *arguments))

    async def fetch_locked(self, sql: str, *arguments: object) -> Row | None:
        # Weaker than FOR UPDATE by one thing: rows that refer to this one may still be added.
        return await self.fetch_one(f"{sql} FOR NO KEY UPDATE", *arguments)

    async def execute(self, sql: str, *arguments: object) -> int:
        return _changed(await self._connection.execute(_numbered(sql), *arguments))

    @asynccontextmanager
    async def together(self) -> AsyncIterator["_Collected"]:
        collected = _Collected()
        yield collected
        if collected.texts:
            await self.execute(_as_one(tuple(collected.texts)), *collected.arguments)

    async def notify(self, channel: str) -> None:
        await self._connection.execute("SELECT pg_notify($1, '')", channel)


class _Collected:
    """Statements that wait for the end of a block."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.arguments: list[object] = []

    async def execute(self, sql: str, *arguments: object) -> None:
        self.texts.append(sql)
        self.arguments += arguments


class PostgresqlDatabase:
    """Made by `connect`."""

    def __init__(self, pool: Any, connect_arguments: Mapping[str, Any]) -> None:
        self._pool, self._connect_arguments = pool, connect_arguments
        self._lookups = Lookups(self._statements)

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        async with self._statements() as statements:
            return await statements.fetch_one(sql, *arguments)

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        async with self._statements() as statements:
            return await statements.fetch_all(sql, *arguments)

    async def look_up(self, sql: str, *arguments: object) -> Row | None:
        return await self._lookups.find(sql, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Statements]:
        async with self._connection() as connection, connection.transaction():
            yield _Statements(connection)

    async def write(self, sql: str, *arguments: object) -> int:
        async with self._statements() as statements:
            return await statements.execute(sql, *arguments)

    async def write_returning(self, sql: str, *arguments: object) -> Row | None:
        return await self.fetch_one(sql, *arguments)

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """On a connection of its own, which is made anew while there is none.

        Behind a pooler that shares connections between transactions nothing is heard: listeners
        look by themselves as well.
        """
        while True:
            with suppress(*_FAILURES):
                await self._listen_once(channel, heard)
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)

    async def _listen_once(self, channel: str, heard: Callable[[], None]) -> None:
        connection = await asyncpg.connect(**self._connect_arguments)
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(channel, lambda *_: heard())
            heard()  # what was missed meanwhile
            await lost.wait()
        finally:
            connection.terminate()

    async def close(self) -> None:
        """Give statements under way a moment; what a dead server holds up is cut off."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._pool.close()
        except _FAILURES:
            self._pool.terminate()

    @asynccontextmanager
    async def _statements(self) -> AsyncIterator[_Statements]:
        async with self._connection() as connection:
            yield _Statements(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        with _translated():
            async with self._pool.acquire(timeout=_CONNECT_SECONDS) as connection:
                try:
                    yield connection
                except FORGOTTEN_STATEMENT:
                    connection.terminate()  # it would fail again and again
                    raise


async def connect(
    location: PostgresqlLocation, password: Password | None, *, migrates: bool = True
) -> PostgresqlDatabase:
    """Open and migrate the database at `location`. Raises StorageOpenError in one clear line."""
    try:
        arguments: dict[str, Any] = {
            "host": location.host,
            "port": location.port,
            "user": location.user,
            "database": location.database,
            # Explicit, because asyncpg looks for what is missing in the environment and in ~.
            "password": password or "",
            "passfile": os.devnull,
            "ssl": _tls(location),
            "connection_class": _Connection,
            "timeout": _CONNECT_SECONDS,
            "command_timeout": _ANSWER_SECONDS,
            "server_settings": {"application_name": "tokenward"},
        }
        if not location.prepared_statements:
            arguments["statement_cache_size"] = 0
        pool = await asyncpg.create_pool(
            **arguments,
            min_size=0,  # made when first needed; asyncpg would retry and log on its own
            max_size=_MAX_CONNECTIONS,
            init=set_session,
        )
    except (*_FAILURES, ValueError) as error:
        raise StorageOpenError(f"{location}: {_reason(error)}") from None
    try:
        await expect_sessions(pool)
        await (_migrate if migrates else _expect_ours)(pool)
    except (StorageOpenError, *_FAILURES) as error:
        pool.terminate()
        raise StorageOpenError(f"{location}: {_reason(error)}") from None
    return PostgresqlDatabase(pool, arguments)


def _tls(location: PostgresqlLocation) -> ssl.SSLContext | bool:
    if location.ca_file is None:
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(location.ca_file)
    context.check_hostname = location.check_name
    return context


async def _migrate(pool: Any) -> None:
    """Under a lock of the whole database: replicas that start together migrate once."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK, timeout=300)
        await migrate(_Statements(connection), TABLES)


async def _expect_ours(pool: Any) -> None:
    async with pool.acquire() as connection:
        await expect_ours(_Statements(connection), TABLES)


@contextmanager
def _translated() -> Iterator[None]:
    """Driver errors become StorageUnavailable: no flow depends on an engine's exceptions."""
    try:
        yield
    except _FAILURES as error:
        raise StorageUnavailable(type(error).__name__) from error


@lru_cache(maxsize=64)
def _as_one(texts: tuple[str, ...]) -> str:
    """Statements that change rows, as one: they run at the same time, on what was there before."""
    *others, last = texts
    named = ", ".join(f"w{number} AS ({text})" for number, text in enumerate(others))
    return f"WITH {named} {last}" if others else last


@lru_cache(maxsize=512)
def _numbered(sql: str) -> str:
    """`?` as `$1`, `$2` …; none of our statements has a question mark in a literal."""
    first, *rest = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in zip(count(1), rest, strict=False))


def _changed(status: str) -> int:
    """The row count at the end of a command tag such as `UPDATE 3`."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


def _reason(error: Exception) -> str:
    """In our own words where a server's text could repeat what was sent to it."""
    match error:
        case StorageOpenError():
            return str(error)
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return "the server refuses the user or the password"
        case asyncpg.InvalidCatalogNameError():
            return "the database does not exist"
        case asyncpg.PostgresError() if named := _UNSUPPORTED_PARAMETER.search(str(error)):
            return f"the server or pooler does not accept the parameter {named[1]}"
        case asyncpg.ConnectionDoesNotExistError():
            # PgBouncer does this to a transaction in its mode `statement`.
            return "the server or pooler closed the connection"
        case TimeoutError():
            return "no answer"
        case OSError():
            return error.strerror or "not reached"
        case _:
            return type(error).__name__
