"""What every session of ours has: its settings, and statements that stay prepared.

A pooler may give each transaction another server connection. What belongs to a session is then
lost between two of them, or is another client's. That is found at the start, in one clear line.
"""

import secrets
from contextlib import suppress
from typing import Any, Final

import asyncpg

from authserver.storage.contract import StorageOpenError

STATEMENT_SECONDS: Final = 10
# Set after connecting: PgBouncer refuses them as parameters of the connection's start.
_SETTINGS: Final = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    # A replica that froze inside a transaction must not hold its locks for long.
    "idle_in_transaction_session_timeout": "20s",
    "synchronous_commit": "on",  # claims and tokens must outlive a crash of the server
    "default_transaction_isolation": "read committed",
}
# The statement is not where we prepared it: a pooler gave us another server connection.
FORGOTTEN_STATEMENT: Final = (
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.ProtocolViolationError,
)
_SECOND_CONNECTION_SECONDS: Final = 3.0


async def set_session(connection: Any) -> None:
    """Set the session's parameters, and see that they are in force. Raises StorageOpenError."""
    assignments = "; ".join(f"SET {name} = '{value}'" for name, value in _SETTINGS.items())
    async with connection.transaction():  # behind a pooler, this keeps one server connection
        await connection.execute(assignments)
    await _expect_in_force(connection)


async def expect_sessions(pool: Any) -> None:
    """Raises StorageOpenError where a session does not outlive a transaction, as it has to.

    A second connection takes the server connection that a pooler would have given to the first.
    Where no second connection is to be had, nothing can be said, and nothing is refused.
    """
    # A word of its own: another process may have prepared something else under the same name.
    sql = f"SELECT '{secrets.token_hex(8)}' AS word"
    async with pool.acquire() as connection:
        word = await connection.fetchrow(sql)
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            async with (
                pool.acquire(timeout=_SECOND_CONNECTION_SECONDS) as second,
                second.transaction(),
            ):
                await second.execute("SELECT 1")
                if await _again(connection, sql) != word:
                    raise StorageOpenError(
                        "a prepared statement is gone after its transaction: behind a pooler that"
                        " shares connections between transactions, storage.url needs"
                        " prepared_statements=false"
                    )
                await _expect_in_force(connection)


async def _again(connection: Any, sql: str) -> Any:
    try:
        return await connection.fetchrow(sql, timeout=_SECOND_CONNECTION_SECONDS)
    except (*FORGOTTEN_STATEMENT, asyncpg.InternalClientError):
        return None


async def _expect_in_force(connection: Any) -> None:
    settings = ", ".join(f"current_setting('{name}')" for name in _SETTINGS)
    row = await connection.fetchrow(f"SELECT {settings}", timeout=_SECOND_CONNECTION_SECONDS)
    for (name, value), in_force in zip(_SETTINGS.items(), row, strict=True):
        if in_force != value:
            raise StorageOpenError(
                f"{name} is {in_force} and not {value} after we set it: a pooler must keep one"
                " server connection for a session, or the role must have this setting"
            )
