"""Leases, sweeping, and what a restored backup must not do."""

from authserver.handles import hash_of
from authserver.storage.backup_restore import Disowned, Restoring
from authserver.storage.contract import Database
from authserver.storage.expiry import BATCH, Expiry
from authserver.storage.leases import Leases
from tests.support.storage_fixtures import NOW, Store, together


async def test_a_lease_has_one_holder_until_it_runs_out(
    database: Database, other: Database
) -> None:
    one, two = Leases(database), Leases(other)
    taken = await together(
        leases.take("sweep", holder, now=NOW, seconds=60)
        for leases, holder in [(one, "a"), (two, "b")] * 5
    )
    assert sorted(taken) == [False] * 5 + [True] * 5
    holder, loser = ("a", "b") if taken[0] else ("b", "a")
    assert not await two.take("sweep", loser, now=NOW + 59, seconds=60)
    assert await two.take("sweep", loser, now=NOW + 60, seconds=60)
    assert not await one.take("sweep", holder, now=NOW + 61, seconds=60)


async def test_a_lease_given_up_is_free_at_once(database: Database) -> None:
    leases = Leases(database)
    assert await leases.take("sweep", "a", now=NOW, seconds=60)
    await leases.give_up("sweep", "b")
    assert not await leases.take("sweep", "b", now=NOW, seconds=60)
    await leases.give_up("sweep", "a")
    assert await leases.take("sweep", "b", now=NOW, seconds=60)


async def test_expired_rows_go_in_batches(database: Database) -> None:
    async with database.transaction() as transaction:
        for number in range(BATCH + 5):
            await transaction.execute(
                "INSERT INTO clients (client_id, metadata, created_at, expires_at)"
                " VALUES (?, '{}', ?, ?)",
                str(number),
                NOW,
                NOW if number else NOW + 1,
            )
    sweeper = Expiry(database)
    assert [await sweeper.expired(NOW) for _ in range(3)] == [BATCH, 4, 0]


async def test_an_ended_session_is_over_at_once_and_takes_its_codes_along(
    database: Database,
) -> None:
    store, sweeper = Store(database), Expiry(database)
    session, code_hash = await store.sign_in()
    kept, _ = await store.sign_in()
    assert not await sweeper.over_sessions(NOW)
    await store.sessions.end(session.tsid, NOW)
    over = await sweeper.over_sessions(NOW)
    assert over == {session.tsid: (session.user_id, session.owner)}
    await sweeper.drop_sessions(over, NOW)
    assert await store.sessions.get(session.tsid) is None
    assert await store.codes.get(code_hash, NOW) is None
    assert await store.sessions.get(kept.tsid) == kept


async def test_a_session_extended_meanwhile_is_not_swept(database: Database) -> None:
    store, sweeper = Store(database), Expiry(database)
    session, _ = await store.sign_in(expires_at=NOW)
    over = await sweeper.over_sessions(NOW)
    await database.write("UPDATE sessions SET expires_at = ?", NOW + 60)
    await sweeper.drop_sessions(over, NOW)
    assert await store.sessions.get(session.tsid) is not None


async def test_a_restored_backup_acts_on_nothing_it_believes(database: Database) -> None:
    store = Store(database)
    found = await store.connected()
    assert await Restoring(database).invalidate(NOW) == Disowned(sessions=1, connections=1)
    latest = await store.connections.get(found.key)
    assert latest is not None
    assert latest.dead
    assert await store.sessions.live(NOW) == 0


async def test_storage_holds_no_handle_in_the_clear(database: Database) -> None:
    store = Store(database)
    session, code_hash = await store.sign_in()
    assert hash_of(session.tsid) != code_hash
    row = await database.fetch_one("SELECT sealed_tokens FROM connections")
    assert row is not None
    assert b"rt-1" not in bytes(row["sealed_tokens"])
