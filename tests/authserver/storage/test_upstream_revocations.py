"""The queue of tokens to revoke: written with the deletion, sealed to its row, taken by one."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from msgspec.structs import replace

from authserver.storage.absent_registrations import AbsentRegistrations
from authserver.storage.contract import Database
from authserver.storage.exchanged_tokens import MAX_VARIANTS
from authserver.storage.key_rotation import KeyRotation, Progress
from authserver.storage.keyring import Keyring
from authserver.storage.records import ClientRegistration, Connection, ConnectionKey, Session
from authserver.storage.upstream_revocations import (
    KEPT_SECONDS,
    LEASE_SECONDS,
    UpstreamRevocation,
    UpstreamRevocations,
    Waiting,
    enqueue,
)
from tests.support.storage_fixtures import KEY, NOW, OWNER, Store, grant, tokens

LATER = NOW + LEASE_SECONDS
NEW = ("k2", b"2" * 32)


def queue(store: Store) -> UpstreamRevocations:
    return UpstreamRevocations(store.database, store.keyring)


async def waiting(store: Store, now: int = LATER) -> list[UpstreamRevocation]:
    found = queue(store)
    names = await found.upstreams_due(now)
    return [one for name in names for one in await found.due(name, now, 1000)]


async def queued(store: Store) -> UpstreamRevocation:
    return await queue(store).add(await store.connected(), NOW)


async def made_of(store: Store, connection: Connection, variant: str = "v") -> Connection:
    """Tokens that were made of a connection's."""
    key = connection.key._replace(upstream="orders", made_of="acme", variant=variant)
    registration = ClientRegistration("https://orders.example.com", "tokenward")
    row = await store.exchanged_tokens.prepare(
        key, connection, registration, asked_scope="", asked_audience="", now=NOW
    )
    assert row is not None
    claim = await store.claims.claim(row, "mine", NOW)
    assert claim is not None
    made = await store.claims.swap(row, "mine", tokens(None))
    assert made is not None
    return made


# What deletes, queues.


async def end(store: Store, session: Session) -> None:
    await store.sessions.end(session.tsid, NOW)
    assert len(await store.connections.purge_unused(session.user_id, OWNER, NOW)) == 2


async def disconnect(store: Store, session: Session) -> None:
    key = ConnectionKey(session.user_id, OWNER, "acme")
    assert len(await store.connections.remove(key, NOW)) == 2


async def connect_another_account(store: Store, session: Session) -> None:
    async with store.database.transaction() as transaction:
        await store.connections.put(transaction, session.user_id, OWNER, grant("another"))


async def sign_in_at_another_client(store: Store, session: Session) -> None:
    another = replace(grant(), registration=ClientRegistration("https://acme", "another"))
    async with store.database.transaction() as transaction:
        await store.connections.put(transaction, session.user_id, OWNER, another)


async def end_of_a_deleted_object(store: Store, session: Session) -> None:
    """The user has a session with the new object of the name; what the deleted one had goes."""
    await store.sign_in(owner_uid="new", user_id=session.user_id)
    await store.sessions.end(session.tsid, NOW)
    await store.database.write("UPDATE connections SET owner_uid = ''")
    assert len(await store.connections.purge_unused(session.user_id, OWNER, NOW)) == 1


@pytest.mark.parametrize(
    "deleting", [end, disconnect, connect_another_account, sign_in_at_another_client]
)
async def test_what_is_deleted_waits_for_its_upstream(
    database: Database, other: Database, deleting: Callable[[Store, Session], Awaitable[None]]
) -> None:
    store = Store(database)
    registered = replace(grant(), registration=ClientRegistration("https://acme", "tokenward"))
    session, _ = await store.sign_in(registered)
    connection = await store.connections.get(ConnectionKey(session.user_id, OWNER, "acme"))
    assert connection is not None
    made = await made_of(store, connection)
    await deleting(store, session)
    found = await waiting(Store(other))
    assert {one.connection.tokens for one in found} == {connection.tokens, made.tokens}
    for one in found:
        source = made if one.connection.key.made_of else connection
        assert one.connection.key == source.key._replace(variant="")
        assert one.connection.registration == source.registration
        assert one.connection.upstream_issuer == source.upstream_issuer
        assert one.connection.upstream_subject == source.upstream_subject


async def test_what_was_made_of_a_purged_connection_waits_for_its_upstream(
    database: Database, other: Database
) -> None:
    """The connection itself does not: its registration is not configured."""
    store = Store(database)
    gone = ClientRegistration("https://acme", "tokenward")
    session, _ = await store.sign_in(replace(grant(), registration=gone))
    connection = await store.connections.get(ConnectionKey(session.user_id, OWNER, "acme"))
    assert connection is not None
    made = [await made_of(store, connection, variant) for variant in ("v1", "v2")]
    absent = AbsentRegistrations(database, store.keyring)
    purged = await absent.purge(("acme", gone), NOW)
    assert purged.connections == [connection.key]
    found = await waiting(Store(other))
    assert {one.revocation_id for one in found} == {one.revocation_id for one in purged.queued}
    assert {one.connection.tokens.access_token for one in found} == {
        one.tokens.access_token for one in made
    }
    assert {one.connection.registration for one in found} == {made[0].registration}
    assert await database.fetch_all("SELECT * FROM exchanged_tokens") == []


async def test_nothing_of_another_registration_is_purged(database: Database) -> None:
    store = Store(database)
    gone, kept = (ClientRegistration("https://acme", name) for name in ("gone", "kept"))
    session, _ = await store.sign_in(replace(grant(), registration=kept))
    connection = await store.connections.get(ConnectionKey(session.user_id, OWNER, "acme"))
    assert connection is not None
    await made_of(store, connection)
    absent = AbsentRegistrations(database, store.keyring)
    assert (await absent.purge(("acme", gone), NOW)).connections == []
    assert await waiting(store) == []
    assert len(await database.fetch_all("SELECT * FROM exchanged_tokens")) == 1


async def test_what_a_deleted_object_had_waits_too(database: Database) -> None:
    store = Store(database)
    session, _ = await store.sign_in()
    await end_of_a_deleted_object(store, session)
    assert len(await waiting(store)) == 1


async def test_a_second_sign_in_of_one_account_queues_nothing(database: Database) -> None:
    """At many providers both are one grant."""
    store = Store(database)
    await store.sign_in()
    await store.sign_in()
    await store.sign_in(grant(refresh_token=None))
    assert await waiting(store) == []


async def test_the_oldest_variant_that_gives_way_waits_too(database: Database) -> None:
    store = Store(database)
    connection = await store.connected()
    made = [await made_of(store, connection, f"{n:02}") for n in range(MAX_VARIANTS + 1)]
    assert [one.connection.tokens for one in await waiting(store, NOW)] == [made[0].tokens]


async def test_an_old_exchanged_token_waits_too(database: Database) -> None:
    store = Store(database)
    made = await made_of(store, await store.connected())
    assert await store.exchanged_tokens.drop_older(NOW, NOW) == []
    [dropped] = await store.exchanged_tokens.drop_older(NOW + 1, NOW)
    assert dropped.connection.tokens == made.tokens
    assert len(await waiting(store)) == 1


async def test_a_deletion_that_is_rolled_back_queues_nothing(database: Database) -> None:
    store = Store(database)
    found = await store.connected()
    with suppress(LookupError):
        async with database.transaction() as transaction:
            await enqueue(transaction, store.keyring, [found], NOW)
            raise LookupError
    assert await waiting(store) == []


# Who may try.


async def test_who_deleted_it_has_the_first_turn(database: Database, other: Database) -> None:
    await queued(Store(database))
    assert await waiting(Store(other), LATER - 1) == []
    assert len(await waiting(Store(other), LATER)) == 1


async def test_one_of_many_sets_out(database: Database, other: Database) -> None:
    await queued(Store(database))
    [one] = await waiting(Store(other))
    queues = [queue(Store(place)) for place in (database, other) * 4]
    claimed = await asyncio.gather(*(each.claim(one, LATER) for each in queues))
    [winner] = [each for each in claimed if each is not None]
    assert winner.attempts == one.attempts + 1
    assert await waiting(Store(other), LATER) == []
    assert await waiting(Store(other), LATER + LEASE_SECONDS) == [winner]


async def test_an_attempt_that_was_overtaken_changes_nothing(
    database: Database, other: Database
) -> None:
    first = await queued(Store(database))
    [due] = await waiting(Store(other))
    second = await queue(Store(other)).claim(due, LATER)
    assert second is not None
    late = queue(Store(database))
    assert not await late.finish(first)
    await late.put_off(first, 0)
    assert await late.claim(first, LATER + LEASE_SECONDS) is None
    assert await waiting(Store(other), LATER + LEASE_SECONDS) == [second]
    assert await queue(Store(other)).finish(second)
    assert await waiting(Store(other), LATER + LEASE_SECONDS) == []


async def test_what_is_put_off_waits_so_long(database: Database) -> None:
    store = Store(database)
    one = await queued(store)
    await queue(store).put_off(one, NOW + 500)
    assert await waiting(store, NOW + 499) == []
    assert len(await waiting(store, NOW + 500)) == 1


async def test_upstreams_are_served_and_counted_apart(database: Database) -> None:
    store = Store(database)
    found = await store.connected()
    for later, name in enumerate(("acme", "hub", "acme")):
        key = found.key._replace(upstream=name)
        await queue(store).add(replace(found, key=key), NOW + later)
    assert await queue(store).upstreams_due(LATER + 2) == ["acme", "hub"]
    assert await queue(store).upstreams_due(NOW) == []
    found_waiting = sorted(await queue(store).waiting(), key=lambda one: one.upstream)
    assert found_waiting == [Waiting("acme", 2, NOW), Waiting("hub", 1, NOW + 1)]
    assert len(await queue(store).due("acme", LATER + 2, 1)) == 1


# Where the tokens are sealed.


@pytest.mark.parametrize(
    "moved",
    [
        "revocation_id = 'x'",
        "user_id = 'x'",
        "owner_namespace = 'x'",
        "owner_name = 'x'",
        "upstream = 'x'",
        "made_of = 'x'",
        "upstream_issuer = 'x'",
        "upstream_subject = 'x'",
        "authorization_server = 'x', registered_client_id = 'x'",
    ],
)
async def test_tokens_open_only_for_whom_they_were_queued(database: Database, moved: str) -> None:
    store = Store(database)
    await queued(store)
    await database.write(f"UPDATE upstream_revocations SET {moved}")
    assert await waiting(store) == []


async def test_what_does_not_open_is_put_off_and_deleted_at_its_end(database: Database) -> None:
    """Another replica may have a key that this one does not have yet."""
    await queued(Store(database, NEW))
    old = Store(database)
    assert await waiting(old, LATER) == []
    assert len(await waiting(Store(database, NEW), LATER + 3600)) == 1
    assert await waiting(old, NOW + KEPT_SECONDS) == []
    assert await queue(old).waiting() == []


async def test_a_rewrap_seals_it_anew(database: Database) -> None:
    one, keys = await queued(Store(database)), KeyRotation(database)
    unregistered = replace(one.connection, registration=ClientRegistration("https://a", "b"))
    await queue(Store(database)).add(unregistered, NOW)
    assert await keys.key_ids() == {"k1"}
    both = Keyring([NEW, KEY])
    *_, last = [progress async for progress in keys.rewrap(both)]
    assert last == Progress(rewrapped=3)  # with the connection of the same user
    found = await waiting(Store(database, NEW))
    assert {each.connection for each in found} == {one.connection, unregistered}


async def test_a_lost_key_takes_it_along(database: Database) -> None:
    await queued(Store(database))
    await KeyRotation(database).forget("k1", NOW)
    assert await queue(Store(database)).waiting() == []
