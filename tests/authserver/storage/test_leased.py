"""A connection of PostgreSQL's pool for a block: it goes back, and failures have one name."""

import asyncio
from typing import Any

import asyncpg
import pytest

from authserver.storage.contract import StorageUnavailable
from authserver.storage.engines.postgresql import PostgresqlDatabase


class Pool:
    """Counts what is taken and given back, and fails where a test wants it to."""

    def __init__(self, acquiring: Exception | None = None, releasing: Exception | None = None):
        self.acquiring, self.releasing = acquiring, releasing
        self.taken = self.given_back = 0

    async def acquire(self, *, timeout: float) -> "Connection":
        if self.acquiring is not None:
            raise self.acquiring
        self.taken += 1
        return Connection()

    async def release(self, _: object) -> None:
        self.given_back += 1
        if self.releasing is not None:
            raise self.releasing


class Connection:
    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        error = arguments[0] if arguments else None
        if isinstance(error, BaseException):
            raise error
        return []


async def ask(pool: Pool, *arguments: object) -> None:
    await PostgresqlDatabase(pool, {}).fetch_all("SELECT ?", *arguments)


async def test_no_connection_is_unavailable() -> None:
    pool = Pool(acquiring=TimeoutError())
    with pytest.raises(StorageUnavailable, match="TimeoutError"):
        await ask(pool)
    assert pool.given_back == 0


async def test_one_that_cannot_be_given_back_is_unavailable() -> None:
    with pytest.raises(StorageUnavailable, match="InterfaceError"):
        await ask(Pool(releasing=asyncpg.InterfaceError("secret")))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (asyncpg.PostgresError("secret"), StorageUnavailable),
        (OSError("secret"), StorageUnavailable),
        (ZeroDivisionError(), ZeroDivisionError),
        (asyncio.CancelledError(), asyncio.CancelledError),
    ],
)
async def test_it_goes_back_whatever_happens(
    error: BaseException, told: type[BaseException]
) -> None:
    pool = Pool()
    with pytest.raises(told) as raised:
        await ask(pool, error)
    assert "secret" not in str(raised.value)
    assert (pool.taken, pool.given_back) == (1, 1)
