"""Statements of one transaction that are sent together, on both engines."""

import pytest

from authserver.storage.contract import Database, StorageUnavailable


@pytest.fixture
async def numbers(database: Database) -> Database:
    async with database.transaction() as transaction:
        await transaction.execute("CREATE TABLE numbers (name TEXT PRIMARY KEY, value BIGINT)")
        for value in range(3):
            await transaction.execute("INSERT INTO numbers VALUES (?, ?)", f"n{value}", value)
    return database


async def stored(database: Database) -> dict[str, int]:
    rows = await database.fetch_all("SELECT name, value FROM numbers")
    return {row["name"]: row["value"] for row in rows}


async def test_all_of_them_are_run_with_their_own_values(numbers: Database) -> None:
    async with numbers.transaction() as transaction, transaction.together() as writes:
        await writes.execute("INSERT INTO numbers VALUES (?, ?)", "new", 7)
        await writes.execute("UPDATE numbers SET value = ? WHERE name = ?", 10, "n0")
        await writes.execute("DELETE FROM numbers WHERE name = ? AND value = ?", "n1", 1)
        await writes.execute("UPDATE numbers SET value = value + ? WHERE name = ?", 5, "n2")
    assert await stored(numbers) == {"new": 7, "n0": 10, "n2": 7}


@pytest.mark.parametrize("count", [0, 1])
async def test_one_or_none_is_no_special_case(numbers: Database, count: int) -> None:
    async with numbers.transaction() as transaction, transaction.together() as writes:
        for number in range(count):
            await writes.execute("UPDATE numbers SET value = ? WHERE name = ?", 9, f"n{number}")
    assert (await stored(numbers))["n0"] == (9 if count else 0)


async def test_what_comes_after_the_block_finds_what_they_wrote(numbers: Database) -> None:
    async with numbers.transaction() as transaction:
        async with transaction.together() as writes:
            await writes.execute("UPDATE numbers SET value = 4 WHERE name = ?", "n0")
            await writes.execute("UPDATE numbers SET value = 4 WHERE name = ?", "n1")
        rows = await transaction.fetch_all("SELECT name FROM numbers WHERE value = ?", 4)
        assert {row["name"] for row in rows} == {"n0", "n1"}


async def test_one_that_fails_undoes_the_others(numbers: Database) -> None:
    async def fail() -> None:
        async with numbers.transaction() as transaction, transaction.together() as writes:
            await writes.execute("UPDATE numbers SET value = 9 WHERE name = ?", "n0")
            await writes.execute("INSERT INTO numbers VALUES (?, ?)", "n1", 1)

    before = await stored(numbers)
    with pytest.raises(StorageUnavailable):
        await fail()
    assert await stored(numbers) == before


async def test_a_block_that_raises_runs_none_and_undoes_the_transaction(numbers: Database) -> None:
    async def fail() -> None:
        async with numbers.transaction() as transaction, transaction.together() as writes:
            await writes.execute("UPDATE numbers SET value = 9 WHERE name = ?", "n0")
            raise KeyError

    before = await stored(numbers)
    with pytest.raises(KeyError):
        await fail()
    assert await stored(numbers) == before
