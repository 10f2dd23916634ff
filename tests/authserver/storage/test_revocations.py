"""Endings are recorded in the transaction that ends, whatever ends; on both engines."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import authserver.storage
from authserver.audit import Audit
from authserver.internal.revocation_feed import RevocationFeed
from authserver.metrics import Metrics
from authserver.storage.absent_registrations import AbsentRegistrations
from authserver.storage.backup_restore import Restoring
from authserver.storage.contract import Database
from authserver.storage.engines.open import open_database
from authserver.storage.expiry import Expiry
from authserver.storage.feed_followers import FeedFollowers
from authserver.storage.key_rotation import KeyRotation
from authserver.storage.records import ClientRegistration, ConnectionKey, Session
from authserver.storage.revocations import (
    KEPT_SECONDS,
    DatabaseIdentity,
    Revocation,
    Revocations,
    connections_ended,
)
from chassis.probes import new_registry
from chassis.process import background
from chassis.spiffe_id import Workload
from tests.support.pgbouncer import (
    give_role_settings,
    needs_pgbouncer,
    new_database,
    pgbouncer,
)
from tests.support.postgresql import USER, PostgresqlServer, starts_postgresql
from tests.support.storage_fixtures import NOW, OWNER, Store, grant, new_refresh_token

Ending = Callable[[Store, Session], Awaitable[object]]


def feed(database: Database) -> RevocationFeed:
    return RevocationFeed(
        Revocations(database),
        DatabaseIdentity(database),
        FeedFollowers(database),
        Audit(b"k" * 32),
        Metrics(new_registry()),
        lambda: NOW,
        "replica",
        poll_seconds=30.0,
    )


async def since(database: Database, moment: int) -> list[Revocation]:
    return [one async for page in Revocations(database).since(moment) for one in page]


async def end(store: Store, session: Session) -> None:
    assert await store.sessions.end(session.tsid, NOW)


async def reuse(store: Store, session: Session) -> None:
    """A used refresh token comes back."""
    first, second = new_refresh_token(), new_refresh_token()
    await store.database.write(
        "INSERT INTO refresh_tokens (token_hash, tsid, expires_at) VALUES (?, ?, ?)",
        first.token_hash,
        session.tsid,
        NOW + 3600,
    )
    for at in (NOW, NOW + 60):
        await store.refresh_tokens.rotate(first.token_hash, second, now=at, grace=30)


async def purge(store: Store, session: Session) -> None:
    await store.database.write("UPDATE sessions SET expires_at = ?", NOW)
    assert len(await store.connections.purge_unused(session.user_id, OWNER, NOW)) == 1


async def purge_of_a_registration(store: Store, session: Session) -> None:
    issuer = ClientRegistration(grant().upstream_issuer, "")
    purged = await AbsentRegistrations(store.database, store.keyring).purge(("acme", issuer), NOW)
    assert purged.connections == [ConnectionKey(session.user_id, OWNER, "acme")]


async def reject(store: Store, session: Session) -> None:
    found = await store.connections.get(ConnectionKey(session.user_id, OWNER, "acme"))
    assert found is not None
    await store.claims.mark_rejected(found, NOW)


async def lose_the_key(store: Store, _: Session) -> None:
    await KeyRotation(store.database).forget("k1", NOW)


async def connect_another_account(store: Store, session: Session) -> None:
    async with store.database.transaction() as transaction:
        await store.connections.put(transaction, session.user_id, OWNER, grant("another"))


@pytest.mark.parametrize(
    ("ending", "session_ends", "connection_ends"),
    [
        (end, True, False),
        (reuse, True, False),
        (purge, False, True),
        (purge_of_a_registration, False, True),
        (reject, False, True),
        (lose_the_key, False, True),
        (connect_another_account, False, True),
    ],
)
async def test_what_ends_is_recorded(
    database: Database, other: Database, ending: Ending, session_ends: bool, connection_ends: bool
) -> None:
    store = Store(database)
    session, _ = await store.sign_in()
    await ending(store, session)
    recorded = await since(other, NOW)
    expected: list[Any] = []
    if session_ends:
        expected.append((OWNER, session.tsid, None, None))
    if connection_ends:
        expected.append((OWNER, None, session.user_id, "acme"))
    assert [(one.owner, one.tsid, one.user_id, one.upstream) for one in recorded] == expected


async def test_what_goes_on_is_not_recorded(database: Database) -> None:
    store = Store(database)
    session, _ = await store.sign_in()
    await store.sign_in(grant())  # the same account again
    await store.sessions.end("nobody", NOW)
    found = await store.connections.get(ConnectionKey(session.user_id, OWNER, "acme"))
    assert found is not None
    assert found.generation == 2
    await store.connections.purge_unused(session.user_id, OWNER, NOW)
    assert await since(database, NOW) == []


async def test_an_ending_is_recorded_once(database: Database) -> None:
    store = Store(database)
    session, _ = await store.sign_in()
    assert [await store.sessions.end(session.tsid, NOW) for _ in range(2)] == [True, False]
    assert len(await since(database, NOW)) == 1


async def test_an_ending_that_is_rolled_back_is_not_recorded(database: Database) -> None:
    store = Store(database)
    with suppress(LookupError):
        async with database.transaction() as transaction:
            await connections_ended(transaction, [ConnectionKey("u", OWNER, "acme")], NOW)
            raise LookupError
    assert await since(store.database, 0) == []


async def test_a_restored_backup_is_another_database(database: Database) -> None:
    identity = DatabaseIdentity(database)
    before = await identity.get()
    assert await identity.get() == before
    await Restoring(database).invalidate(NOW)
    assert await identity.get() != before


async def test_rows_go_after_ten_minutes(database: Database) -> None:
    store = Store(database)
    session, _ = await store.sign_in()
    await store.sessions.end(session.tsid, NOW)
    await Expiry(database).expired(NOW + KEPT_SECONDS - 1)
    assert len(await since(database, 0)) == 1
    await Expiry(database).expired(NOW + KEPT_SECONDS)
    assert await since(database, 0) == []


async def test_a_mass_of_endings_is_read_page_by_page(database: Database) -> None:
    keys = [ConnectionKey(f"user-{number}", OWNER, "acme") for number in range(1203)]
    async with database.transaction() as transaction:
        await connections_ended(transaction, keys, NOW)
        await connections_ended(transaction, keys[:1], NOW - 1)
    found = await since(database, NOW)
    assert sorted(str(one.user_id) for one in found) == sorted(key.user_id for key in keys)
    assert len(await Revocations(database).of_owner(OWNER, NOW, 700)) == 700
    assert await Revocations(database).of_owner(Workload("other", "notes"), 0, 700) == []


class Known:
    """Some ids, all of which ended at NOW."""

    def __init__(self, *ids: str) -> None:
        self._ids = ids

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._ids

    def ended_at(self, moment: int) -> int:
        return len(self._ids) if moment == NOW else 0


async def test_a_second_is_read_again_only_where_more_ended_in_it_than_is_known(
    database: Database,
) -> None:
    async def add(user: str, at: int) -> None:
        async with database.transaction() as transaction:
            await connections_ended(transaction, [ConnectionKey(user, OWNER, "acme")], at)

    async def new(known: Known) -> list[str | None]:
        pages = Revocations(database).since(NOW - 20, known=known)
        return [one.user_id async for page in pages for one in page]

    await add("first", NOW)
    (first,) = await since(database, NOW)
    known = Known(first.revocation_id)
    assert await new(known) == []
    await add("late", NOW - 19)
    assert await new(known) == ["late"]
    await add("second", NOW)
    assert sorted(map(str, await new(known))) == ["late", "second"]
    assert await new(Known("foreign", "other")) == ["late"], "as many as are known: not read"


async def hears(here: RevocationFeed, cursor: str, there: Database, session: Session) -> None:
    """A poll that waits is answered when another process ends the session."""
    async with background(here.run()):
        polling = asyncio.create_task(here.poll(OWNER, cursor))
        while not here.waiting:
            await asyncio.sleep(0)
        await Store(there).sessions.end(session.tsid, NOW)
        assert len((await polling)["ended"]) == 1


async def test_a_poll_hears_of_an_ending_by_another_process(
    database: Database, other: Database
) -> None:
    session, _ = await Store(database).sign_in()
    here = feed(other)
    cursor = (await here.poll(OWNER, None))["cursor"]
    await hears(here, cursor, database, session)


@starts_postgresql
async def test_postgresql_wakes_a_replica(postgresql: PostgresqlServer) -> None:
    url = await postgresql.create_database()
    ours, theirs = [await open_database(url, lambda: postgresql.password) for _ in range(2)]
    session, _ = await Store(ours).sign_in()
    heard = asyncio.Queue[None]()
    async with background(Revocations(theirs).listen(lambda: heard.put_nowait(None))):
        await heard.get()  # it listens now
        await Store(ours).sessions.end(session.tsid, NOW)
        await heard.get()
        await postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
        await heard.get()  # and again, after its connection was lost
    for database in (ours, theirs):
        await database.close()


@needs_pgbouncer
@starts_postgresql
@pytest.mark.parametrize(
    ("mode", "options"), [("session", ""), ("transaction", "?prepared_statements=false")]
)
async def test_it_is_heard_behind_a_pooler(
    postgresql: PostgresqlServer, mode: str, options: str
) -> None:
    """In mode `transaction` no notification comes; the look once a second finds it."""
    name = await new_database(postgresql)
    await give_role_settings(postgresql, name)
    direct = await open_database(postgresql.url(name), lambda: postgresql.password)
    session, _ = await Store(direct).sign_in()
    with pgbouncer(postgresql, mode) as port:
        pooled = await open_database(
            f"postgresql://{USER}@127.0.0.1:{port}/{name}{options}", lambda: postgresql.password
        )
        here = feed(pooled)
        await hears(here, (await here.poll(OWNER, None))["cursor"], direct, session)
        await pooled.close()
    await direct.close()


def test_no_other_statement_ends_a_session_or_deletes_a_connection() -> None:
    """Whoever adds one must record the ending, and then add the place here."""
    folder = Path(str(authserver.storage.__file__)).parent
    ends = re.compile(r"(SET ended_at|DELETE FROM connections|SET dead = 1, rejected)")
    found = {
        (file.stem, match)
        for file in folder.parent.rglob("*.py")
        for match in ends.findall(file.read_text())
    }
    assert found == {
        ("sessions", "SET ended_at"),
        ("backup_restore", "SET ended_at"),  # stands for another database from then on
        ("claim_rows", "SET dead = 1, rejected"),
        ("connections", "DELETE FROM connections"),
        ("absent_registrations", "DELETE FROM connections"),
        ("key_rotation", "DELETE FROM connections"),
    }
