"""Both engines: every test that asks for `database` or `place` runs on SQLite and PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from authserver.storage.contract import Database
from tests.support.postgresql import PostgresqlServer, starts_postgresql
from tests.support.storage_fixtures import Place


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    # Without fsync: these tests end processes, never the power.
    with PostgresqlServer("fsync = off") as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=starts_postgresql)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where an empty database can be opened, as often as a test has processes."""
    if request.param == "sqlite":
        return Place(f"sqlite://{tmp_path}/tokenward.db")
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return Place(await server.create_database(), server.password_file)


@pytest.fixture
async def database(place: Place) -> AsyncIterator[Database]:
    database = await place.open()
    yield database
    await database.close()


@pytest.fixture
async def other(place: Place, database: Database) -> AsyncIterator[Database]:
    """The same storage, as another replica has it."""
    database = await place.open()
    yield database
    await database.close()
