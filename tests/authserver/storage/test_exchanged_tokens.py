"""Tokens that an exchange made, as both engines keep them: on their connection, by variant."""

import pytest
from msgspec.structs import replace

from authserver.handles import new_handle
from authserver.storage.contract import Database, StorageOpenError
from authserver.storage.exchanged_tokens import MAX_VARIANTS, NoSuchSession, UpstreamNotNamed
from authserver.storage.key_rotation import KeyRotation
from authserver.storage.keyring import DecryptionFailed, Keyring
from authserver.storage.records import (
    ClientRegistration,
    Connection,
    ConnectionKey,
    Grant,
    Session,
    UpstreamTokens,
)
from chassis.spiffe_id import Workload
from tests.support.storage_fixtures import KEY, NOW, OWNER, RESOURCE, Store, grant, together

AT_PROVIDER = ClientRegistration("https://acme.example.com/token", "tokenward")
NEW = ("k2", b"2" * 32)
WEEK = 7 * 86_400


def registered(subject: str = "alice") -> Grant:
    return replace(grant(subject), registration=AT_PROVIDER)


async def signed_in(store: Store, **changes: object) -> tuple[Session, Connection]:
    named = {"upstreams": ("acme", "orders")} | changes
    session, _ = await store.sign_in(registered(new_handle()), **named)
    parent = await store.connections.get(ConnectionKey(session.user_id, OWNER, "acme"))
    assert parent is not None
    return session, parent


def key_of(parent: Connection, variant: str = "v1") -> ConnectionKey:
    return ConnectionKey(parent.key.user_id, OWNER, "orders", parent.key.upstream, variant)


async def prepared(
    store: Store, parent: Connection, variant: str = "v1", now: int = NOW
) -> Connection | None:
    return await store.exchanged_tokens.prepare(
        key_of(parent, variant), parent, AT_PROVIDER,
        asked_scope="read", asked_audience="orders", now=now,
    )  # fmt: skip


async def made(store: Store, parent: Connection, token: str, variant: str = "v1") -> Connection:
    """A token that was made under a claim, as an exchange does it."""
    row = await prepared(store, parent, variant)
    assert row is not None
    assert await store.claims.claim(row, token, NOW) is not None
    tokens = UpstreamTokens(token, None, "read", NOW, NOW + 300)
    swapped = await store.claims.swap(row, token, tokens, AT_PROVIDER)
    assert swapped is not None
    return swapped


async def found(store: Store, session: Session, key: ConnectionKey) -> Connection | None:
    return await store.exchanged_tokens.of_session(
        session.tsid, key, client_id="client", resource=RESOURCE, now=NOW
    )


async def test_a_token_is_found_by_its_own_session_and_variant_alone(database: Database) -> None:
    store = Store(database)
    session, parent = await signed_in(store)
    stranger, _ = await signed_in(store)
    assert await found(store, session, key_of(parent)) is None
    await made(store, parent, "made-1")
    stored = await found(store, session, key_of(parent))
    assert stored is not None
    assert (stored.tokens.access_token, stored.asked_scope) == ("made-1", "read")
    assert stored.key.root == parent.key
    assert await found(store, session, key_of(parent, "v2")) is None
    with pytest.raises(NoSuchSession):
        await found(store, stranger, key_of(parent))
    elsewhere = key_of(parent)._replace(owner=Workload("mcp-servers", "tasks"))
    with pytest.raises(NoSuchSession):
        await found(store, session, elsewhere)


@pytest.mark.parametrize("named", [("acme",), None])
async def test_a_session_whose_page_did_not_name_the_upstream_has_no_token_there(
    database: Database, named: tuple[str, ...] | None
) -> None:
    store = Store(database)
    session, parent = await signed_in(store, upstreams=named)
    await made(store, parent, "made-1")
    with pytest.raises(UpstreamNotNamed):
        await found(store, session, key_of(parent))


async def test_of_many_that_prepare_and_claim_one_makes_the_token(
    database: Database, other: Database
) -> None:
    stores = [Store(database), Store(other)]
    _, parent = await signed_in(stores[0])
    rows = await together(prepared(stores[number % 2], parent) for number in range(20))
    assert [row.generation for row in rows if row is not None] == [0] * 20
    claims = await together(
        stores[number % 2].claims.claim(row, f"h{number}", NOW)
        for number, row in enumerate(rows)
        if row is not None
    )
    assert len([claim for claim in claims if claim is not None]) == 1
    count = await database.fetch_one("SELECT COUNT(*) AS n FROM exchanged_tokens")
    assert count is not None
    assert count["n"] == 1


async def test_a_token_goes_with_its_connection_and_is_not_found_while_that_is_dead(
    database: Database,
) -> None:
    store = Store(database)
    session, parent = await signed_in(store)
    await made(store, parent, "made-1")
    await database.write("UPDATE connections SET dead = 1")
    assert await found(store, session, key_of(parent)) is None
    await database.write("UPDATE connections SET dead = 0")
    assert await found(store, session, key_of(parent)) is not None
    await database.write("DELETE FROM connections")
    assert await database.fetch_all("SELECT * FROM exchanged_tokens") == []
    assert await prepared(store, parent) is None, "nothing is made of what is gone"


async def test_nothing_is_made_of_a_connection_that_became_another_accounts(
    database: Database,
) -> None:
    store = Store(database)
    _, parent = await signed_in(store)
    await database.write("UPDATE connections SET upstream_subject = 'somebody else'")
    assert await prepared(store, parent) is None


async def test_the_oldest_variant_gives_way_to_one_too_many(database: Database) -> None:
    store = Store(database)
    _, parent = await signed_in(store)
    for number in range(MAX_VARIANTS + 2):
        assert await prepared(store, parent, f"v{number:03}", now=NOW + number) is not None
    rows = await database.fetch_all("SELECT variant FROM exchanged_tokens ORDER BY variant")
    assert [row["variant"] for row in rows] == [f"v{n:03}" for n in range(2, MAX_VARIANTS + 2)]


async def test_the_weeks_sweep_takes_what_nobody_renewed_and_gives_it_to_be_revoked(
    database: Database,
) -> None:
    store = Store(database)
    session, parent = await signed_in(store)
    await made(store, parent, "old", "old")
    await made(store, parent, "young", "young")
    claimed = await made(store, parent, "claimed", "claimed")
    await prepared(store, parent, "never made")
    assert await store.claims.claim(claimed, "h", NOW) is not None
    await database.write(
        "UPDATE exchanged_tokens SET renewed_at = ? WHERE variant <> ?", NOW - WEEK, "young"
    )
    dropped = await store.exchanged_tokens.drop_older(NOW - WEEK + 1, NOW)
    revoking = [one.connection.tokens.access_token for one in dropped]
    assert revoking == ["old"], "nothing to revoke in the other"
    rows = await database.fetch_all("SELECT variant FROM exchanged_tokens ORDER BY variant")
    assert [row["variant"] for row in rows] == ["claimed", "young"]
    assert await found(store, session, key_of(parent, "young")) is not None
    assert await store.exchanged_tokens.drop_older(NOW - WEEK + 1, NOW) == []


async def test_a_renewed_token_is_young_again(database: Database) -> None:
    store = Store(database)
    _, parent = await signed_in(store)
    row = await prepared(store, parent, now=NOW - WEEK)
    assert row is not None
    assert await store.claims.claim(row, "h", NOW) is not None
    tokens = UpstreamTokens("made", None, None, NOW, None)
    assert await store.claims.swap(row, "h", tokens, AT_PROVIDER) is not None
    assert await store.exchanged_tokens.drop_older(NOW - 1, NOW) == []


async def test_a_rewrap_seals_made_tokens_under_the_new_key(database: Database) -> None:
    old, keys = Store(database), KeyRotation(database)
    session, parent = await signed_in(old)
    await made(old, parent, "made-1")
    await prepared(old, parent, "never made")
    with pytest.raises(StorageOpenError, match="k1 is missing"):
        await keys.check(Keyring([NEW]))
    async for _ in keys.rewrap(Keyring([NEW, KEY])):
        pass
    await keys.check(Keyring([NEW]))
    stored = await found(Store(database, NEW), session, key_of(parent))
    assert stored is not None
    assert stored.tokens.access_token == "made-1"


@pytest.mark.parametrize(
    "moved", ["variant = 'v2'", "upstream = 'billing'", "registered_client_id = 'other'"]
)
async def test_a_moved_row_does_not_open(database: Database, moved: str) -> None:

    store = Store(database)
    session, parent = await signed_in(store, upstreams=("acme", "orders", "billing"))
    await made(store, parent, "made-1")
    await database.write(f"UPDATE exchanged_tokens SET {moved}")
    key = key_of(parent)
    if "variant" in moved:
        key = key._replace(variant="v2")
    elif "upstream" in moved:
        key = key._replace(upstream="billing")
    with pytest.raises(DecryptionFailed):
        await found(store, session, key)
