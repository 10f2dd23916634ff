"""How many users must come back within a week, on both engines."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from authserver.storage.contract import Database
from authserver.storage.records import Grant
from authserver.storage.users_needed import COUNT, UsersNeeded
from tests.support.storage_fixtures import NOW, Place, Store, grant

WEEK, ABSOLUTE = 7 * 86400, 90 * 86400
LATER = NOW + 200 * 86400


async def needed(database: Database, now: int = NOW) -> int:
    return await UsersNeeded(database).count(now, within=WEEK, absolute_seconds=ABSOLUTE)


def ending(at: int, subject: str = "alice", refresh_token: str | None = "rt") -> Grant:
    one = grant(subject, refresh_token)
    return replace(one, tokens=replace(one.tokens, authorization_expires_at=at))


@pytest.mark.parametrize(("end", "counted"), [(WEEK + 1, 0), (WEEK, 1), (1, 1), (-1, 1)])
async def test_a_connection_counts_a_week_before_its_end(
    database: Database, end: int, counted: int
) -> None:
    await Store(database).sign_in(ending(NOW + end), expires_at=LATER)
    assert await needed(database) == counted


async def test_a_token_that_cannot_be_renewed_counts_by_its_own_end(database: Database) -> None:
    store = Store(database)
    await store.sign_in(grant("alice", None), expires_at=LATER)
    await store.sign_in(grant("bob"), expires_at=LATER)
    assert await needed(database) == 1


@pytest.mark.parametrize(("age", "counted"), [(82, 0), (83, 1), (89, 1)])
async def test_a_session_counts_a_week_before_its_end(
    database: Database, age: int, counted: int
) -> None:
    began = NOW - age * 86400
    await Store(database).sign_in(created_at=began, expires_at=began + ABSOLUTE)
    assert await needed(database) == counted


async def test_a_session_that_is_merely_unused_does_not_count(database: Database) -> None:
    """Its client may refresh it today."""
    began = NOW - 30 * 86400
    await Store(database).sign_in(created_at=began, expires_at=NOW + 3600)
    assert await needed(database) == 0


async def test_a_later_session_at_the_same_resource_takes_over(database: Database) -> None:
    store, began = Store(database), NOW - 85 * 86400
    await store.sign_in(created_at=began, expires_at=began + ABSOLUTE)
    assert await needed(database) == 1
    await store.sign_in(created_at=NOW, expires_at=NOW + 30 * 86400, resource="https://other/mcp")
    assert await needed(database) == 1
    await store.sign_in(created_at=NOW, expires_at=NOW + 30 * 86400)
    assert await needed(database) == 0


async def test_what_no_live_session_names_does_not_count(database: Database) -> None:
    store = Store(database)
    await store.sign_in(ending(NOW, "alice"), expires_at=LATER, upstreams=("other",))
    session, _ = await store.sign_in(ending(NOW, "bob"), expires_at=LATER, upstreams=("acme",))
    assert await needed(database) == 1
    await store.sessions.end(session.tsid, NOW)
    assert await needed(database) == 0


async def test_a_dead_connection_and_each_user_count_once(database: Database) -> None:
    store = Store(database)
    for _ in range(2):
        await store.sign_in(ending(NOW), expires_at=LATER)
    await store.sign_in(grant("bob"), expires_at=LATER)
    assert await needed(database) == 1
    await database.write("UPDATE connections SET dead = 1")
    assert await needed(database) == 2
    await database.write("UPDATE users SET blocked_at = 1 WHERE subject = ?", "bob")
    assert await needed(database) == 1


async def test_sqlite_reads_each_users_own_sessions_and_never_all_of_a_resource(
    tmp_path: Path,
) -> None:
    """By the other index, 100,000 sessions took half a minute."""
    database = await Place(f"sqlite://{tmp_path}/tokenward.db").open()
    plan = await database.fetch_all(f"EXPLAIN QUERY PLAN {COUNT}", *[NOW] * 8)
    await database.close()
    searches = [row["detail"] for row in plan if " l " in row["detail"]]
    assert ["sessions_by_holder" in detail for detail in searches] == [True]
