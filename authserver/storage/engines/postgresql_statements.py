"""Statements over one connection to PostgreSQL, as `storage.contract` has them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from itertools import count
from typing import Any

from authserver.storage.contract import Row


class PostgresqlStatements:
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

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """One transaction of the connection."""
        begun: AbstractAsyncContextManager[None] = self._connection.transaction()
        return begun


class _Collected:
    """Statements that wait for the end of a block."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.arguments: list[object] = []

    async def execute(self, sql: str, *arguments: object) -> None:
        self.texts.append(sql)
        self.arguments += arguments


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
