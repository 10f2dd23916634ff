"""Look-ups that are ready together: each gets its own row, whoever else asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from authserver.storage.contract import Database, Row, StorageUnavailable
from authserver.storage.engines.postgresql_lookups import (
    AT_A_TIME,
    IN_A_ROW,
    MOST,
    Lookups,
    together,
)
from tests.support.postgresql import starts_postgresql
from tests.support.storage_fixtures import Store

_QUERY = "SELECT user_id, hint, expires_at FROM numbers WHERE user_id = ? AND expires_at > ?"


# SQLite has no statement for many.
on_postgresql = pytest.mark.parametrize(
    "place", [pytest.param("postgresql", marks=starts_postgresql)], indirect=True
)


@pytest.fixture
async def numbers(database: Database) -> Database:
    async with database.transaction() as transaction:
        await transaction.execute(
            "CREATE TABLE numbers (user_id TEXT PRIMARY KEY, hint TEXT, expires_at BIGINT)"
        )
        for number in range(300):
            await transaction.execute(
                "INSERT INTO numbers VALUES (?, NULL, ?)", f"u{number}", number
            )
    return database


async def test_each_caller_gets_its_own_row(numbers: Database) -> None:
    async def ask(number: int) -> Row | None:
        return await numbers.look_up(_QUERY, f"u{number}", -1 if number % 3 else 10_000)

    rows = await asyncio.gather(*(ask(number) for number in range(310)))
    for number, row in enumerate(rows):
        if number >= 300 or not number % 3:
            assert row is None
        else:
            assert row is not None
            assert list(row) == [f"u{number}", None, number]
            assert (row["expires_at"], row[0], row[1:]) == (number, f"u{number}", (None, number))


async def test_each_caller_gets_all_of_its_rows(numbers: Database) -> None:
    async def ask(number: int) -> list[Row]:
        query = "SELECT user_id FROM numbers WHERE expires_at >= ? AND expires_at < ?"
        return await numbers.look_all_up(query, number, number + number % 3)

    found = await asyncio.gather(*(ask(number) for number in range(100)))
    for number, rows in enumerate(found):
        assert {row[0] for row in rows} == {f"u{number + at}" for at in range(number % 3)}


@on_postgresql
@pytest.mark.parametrize("count", [1, 50])
async def test_each_is_found_by_an_index_in_a_table_of_any_size(
    numbers: Database, count: int
) -> None:
    """The planner takes a look-up's JSON for a hundred rows: enough to read a whole table for."""
    async with numbers.transaction() as transaction:
        await transaction.execute(
            "INSERT INTO numbers SELECT 'n' || n, NULL, n FROM generate_series(1, 5000) AS n"
        )
        await transaction.execute("ANALYZE numbers")
    query = "SELECT a.user_id FROM numbers a JOIN numbers b ON b.user_id = a.user_id"
    text = together(f"{query} WHERE a.user_id = ?", "text")
    asked = json.dumps([{"v1": f"n{number}"} for number in range(count)])
    plan = [row[0] for row in await numbers.fetch_all(f"EXPLAIN {text}", asked)]
    assert not [line for line in plan if "Seq Scan" in line], plan


async def test_what_was_written_before_is_found_and_what_ended_is_not(numbers: Database) -> None:
    assert await numbers.look_up(_QUERY, "new", 0) is None
    await numbers.write("INSERT INTO numbers VALUES ('new', 'x', 5)")
    row = await numbers.look_up(_QUERY, "new", 0)
    assert row is not None
    await numbers.write("DELETE FROM numbers WHERE user_id = 'new'")
    assert await numbers.look_up(_QUERY, "new", 0) is None


@pytest.mark.parametrize("value", ["\x00", '"', "\\x41", "\\", "ä\u2028\U0001f600", ""])
async def test_texts_and_bytes_arrive_as_they_are(database: Database, value: str) -> None:
    async with database.transaction() as transaction:
        await transaction.execute("CREATE TABLE kept (name TEXT, raw BYTEA, number BIGINT)")
        text = value.replace("\0", "")
        raw, number = value.encode() + b"\xff", -(2**63)
        await transaction.execute("INSERT INTO kept VALUES (?, ?, ?)", text, raw, number)
    query = "SELECT name, raw, number FROM kept WHERE name = ? AND raw = ? AND number = ?"
    row = await database.look_up(query, text, raw, number)
    assert row is not None
    assert (row[0], bytes(row[1]), row[2]) == (text, raw, number)
    assert await database.look_up(query, text, raw + b"\0", number) is None


@pytest.mark.parametrize("refused", ["a\0b", "a\ud800b"])
async def test_a_value_that_the_engine_cannot_take_is_the_fault_of_its_caller_alone(
    database: Database, refused: str
) -> None:
    """Text of PostgreSQL holds no NUL; a form with one is refused before it gets here."""
    store = Store(database)
    session, _ = await store.sign_in()
    query = "SELECT user_id FROM sessions WHERE tsid = ?"
    found = await asyncio.gather(
        database.look_up(query, session.tsid),
        database.look_up(query, refused),
        database.look_up(query, session.tsid),
        return_exceptions=True,
    )
    for row in (found[0], found[2]):
        assert not isinstance(row, BaseException)
        assert row is not None
        assert row[0] == session.user_id
    assert found[1] is None or isinstance(found[1], StorageUnavailable)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Statements:
    """A server that answers when told to, with a row for each that is asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.connections = 0
        self.texts: set[str] = set()
        self.answer = asyncio.Event()
        self.failure: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Statements"]:
        self.connections += 1
        yield self

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        names = [asked["v1"] for asked in json.loads(str(arguments[0]))]
        self.asked.append(names)
        self.texts.add(sql)
        self.meanwhile()
        await turns()
        await self.answer.wait()
        if self.failure is not None:
            raise self.failure
        rows: list[Row] = [(name, at) for at, name in enumerate(names, 1)]  # type: ignore[misc]
        return rows


async def test_all_that_are_ready_take_one_round_trip_of_one_text() -> None:
    server = Statements()
    lookups = Lookups(server.connection)

    def ask(*names: str) -> list["asyncio.Task[list[Row]]"]:
        return [asyncio.create_task(lookups.find("SELECT ? AS name", name)) for name in names]

    tasks = ask("a", "b")
    await turns()
    tasks += ask("c")
    await turns()
    tasks += ask("d")
    await turns()
    tasks += ask("e", "f")
    await turns()
    assert AT_A_TIME == 2
    assert server.asked == [["a", "b"], ["c"]]
    server.answer.set()
    found = [rows[0][0] for rows in await asyncio.gather(*tasks)]
    assert found == ["a", "b", "c", "d", "e", "f"]
    assert server.asked[2:] == [["d", "e", "f"]]
    assert server.connections == 2
    assert len(server.texts) == 1


async def test_one_that_goes_away_leaves_the_others_theirs() -> None:
    server = Statements()
    lookups = Lookups(server.connection)
    gone, stays = (asyncio.create_task(lookups.find("SELECT ?", name)) for name in "ab")
    await asyncio.sleep(0)
    gone.cancel()
    server.answer.set()
    [row] = await stays
    assert row[0] == "b"


async def test_a_failure_is_told_to_all_who_asked_and_to_nobody_later() -> None:
    server = Statements()
    server.answer.set()
    server.failure = StorageUnavailable("PostgresConnectionError")
    server.failure.__cause__ = asyncpg.PostgresConnectionError()
    lookups = Lookups(server.connection)
    found = await asyncio.gather(
        *(lookups.find("SELECT ?", name) for name in "ab"), return_exceptions=True
    )
    assert [type(each) for each in found] == [StorageUnavailable] * 2
    assert found[0] is not found[1]
    assert len(server.asked) == 1
    server.failure = None
    assert await lookups.find("SELECT ?", "c")


async def test_a_connection_goes_back_after_a_while_however_many_come() -> None:
    """Five queries would keep the ten connections of a pool, and no write got one."""
    server = Statements()
    server.answer.set()
    lookups = Lookups(server.connection)
    asked: list[asyncio.Task[list[Row]]] = []

    def ask() -> None:
        if len(asked) < 10 * IN_A_ROW:
            asked.append(asyncio.create_task(lookups.find("SELECT ? AS name", f"n{len(asked)}")))

    server.meanwhile = ask
    ask()
    while len(asked) < 10 * IN_A_ROW:
        await asyncio.sleep(0)
    found = [rows[0][0] for rows in await asyncio.gather(*asked)]
    assert found == [f"n{number}" for number in range(10 * IN_A_ROW)]
    assert server.connections >= 10


async def test_a_fault_of_ours_leaves_nobody_waiting() -> None:
    server = Statements()
    server.answer.set()
    server.failure = ZeroDivisionError()
    lookups = Lookups(server.connection)
    async with asyncio.timeout(5):
        with pytest.raises(StorageUnavailable, match="ZeroDivisionError"):
            await lookups.find("SELECT ?", "a")


async def test_no_statement_is_for_more_than_the_bound() -> None:
    server = Statements()
    server.answer.set()
    lookups = Lookups(server.connection)
    names = [f"n{number}" for number in range(2 * MOST + 50)]
    found = await asyncio.gather(*(lookups.find("SELECT ? AS name", name) for name in names))
    assert [rows[0][0] for rows in found] == names
    assert [len(asked) for asked in server.asked] == [MOST, MOST, 50]


async def test_what_waits_when_a_connection_fails_is_sent_over_another() -> None:
    server = Statements()
    lookups = Lookups(server.connection)
    tasks = []
    for name in "abc":
        tasks.append(asyncio.create_task(lookups.find("SELECT ?", name)))
        await turns()
    server.failure = StorageUnavailable("ConnectionDoesNotExistError")
    server.answer.set()
    await asyncio.wait(tasks[:2])
    server.failure = None
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [StorageUnavailable, StorageUnavailable, list]


class Unconnected:
    """A server with which a connection takes until `refuse` is set, and then fails."""

    def __init__(self) -> None:
        self.refuse = asyncio.Event()
        self.connected: Statements | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Statements]:
        if self.connected is None:
            self.connected = Statements()
            yield self.connected
        else:
            await self.refuse.wait()
            self.refuse.clear()
            raise StorageUnavailable("TimeoutError")


async def test_where_no_connection_is_to_be_had_nobody_waits_for_several() -> None:
    server = Unconnected()
    server.connected = Statements()
    lookups = Lookups(server.connection)
    tasks = [
        asyncio.create_task(lookups.find("SELECT ?", "a")) for _ in range(MOST * (AT_A_TIME + 2))
    ]
    await turns()
    server.refuse.set()
    await turns()
    assert [type(task.exception()) for task in tasks] == [StorageUnavailable] * len(tasks)


async def test_who_can_still_be_answered_is_not_told_of_a_failed_connection() -> None:
    server = Unconnected()
    lookups = Lookups(server.connection)
    first = asyncio.create_task(lookups.find("SELECT ?", "first"))
    await turns()
    second = asyncio.create_task(lookups.find("SELECT ?", "second"))
    await turns()
    third = asyncio.create_task(lookups.find("SELECT ?", "third"))
    await turns()
    server.refuse.set()
    await asyncio.wait([second])
    await turns()
    assert isinstance(second.exception(), StorageUnavailable)
    assert not third.done()
    assert server.connected is not None
    server.connected.answer.set()
    assert (await first)[0][0] == "first"
    third.cancel()
    server.refuse.set()
    await turns()
