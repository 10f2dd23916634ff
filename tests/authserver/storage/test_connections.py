"""Connections: one claim a generation, a swap by claim, and rows that open only in their place."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from authserver.storage.exchanged_tokens import NoSuchSession
from authserver.storage.keyring import DecryptionFailed
from authserver.storage.records import Connection, UpstreamTokens
from chassis.spiffe_id import Workload
from tests.support.database_file import count, sql
from tests.support.storage_files import NEIGHBOUR, NOW, OWNER, Store, key, stores

ELSEWHERE = Workload("elsewhere", OWNER.name)
NEXT = UpstreamTokens("access 2", "refresh 2", None, NOW + 100, NOW + 200)


async def found(store: Store, user: str = "u1") -> Connection:
    connection = await store.connections.get(key(user))
    assert connection is not None
    return connection


async def claim(store: Store, at: Connection, name: str, stale_before: int = 0) -> bool:
    taken = await store.claims.claim(at, name, NOW, overdue_before=stale_before)
    return taken is not None


async def mark_dead(store: Store, at: Connection, name: str = "buried") -> None:
    """Claim and give up."""
    await claim(store, at, name)
    assert await store.claims.mark_dead(at, name)


async def test_of_fifty_claims_at_two_instances_one_succeeds(tmp_path: Path) -> None:
    async with stores(tmp_path) as (one, other):
        await one.sign_in()
        at = await found(one)
        claims = await asyncio.gather(
            *(claim(store, at, f"c{n}") for n, store in enumerate((one, other) * 25))
        )
        assert sum(claims) == 1


async def test_a_claim_is_for_one_generation_that_is_alive(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        at = await found(store)
        assert not await claim(store, replace(at, generation=at.generation + 1), "c")
        assert not await claim(store, replace(at, generation=at.generation - 1), "c")
        await mark_dead(store, at)
        assert not await claim(store, at, "c", NOW + 1)
        assert (await found(store)).dead


@pytest.mark.parametrize(("stale_before", "taken"), [(0, False), (NOW, False), (NOW + 1, True)])
async def test_a_claim_is_taken_over_only_when_it_is_stale(
    tmp_path: Path, stale_before: int, taken: bool
) -> None:
    async with stores(tmp_path) as (one, other):
        await one.sign_in()
        at = await found(one)
        assert await claim(one, at, "first")
        assert await claim(other, at, "second", stale_before) is taken
        stored = await one.claims.swap(at, "first", NEXT)
        assert (stored is None) is taken


async def test_a_swap_needs_the_claim_and_the_generation(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        at = await found(store)
        assert await store.claims.swap(at, "never claimed", NEXT) is None
        await claim(store, at, "c")
        assert await store.claims.swap(at, "another", NEXT) is None
        later = replace(at, generation=at.generation + 1)
        assert await store.claims.swap(later, "c", NEXT) is None
        assert (await found(store)).tokens == at.tokens
        swapped = await store.claims.swap(at, "c", NEXT)
        assert swapped == await found(store)
        assert swapped is not None
        assert (swapped.tokens, swapped.generation) == (NEXT, at.generation + 1)
        assert await store.claims.swap(at, "c", NEXT) is None


async def test_a_claim_given_back_can_be_taken_again_and_only_by_its_holder(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        at = await found(store)
        await claim(store, at, "c")
        await store.claims.release_claim(at, "another")
        assert not await claim(store, at, "d")
        await store.claims.release_claim(at, "c")
        assert await claim(store, at, "d")


async def test_a_late_burial_leaves_the_next_generation_alone(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        at = await found(store)
        await claim(store, at, "c")
        await store.claims.swap(at, "c", NEXT)
        assert not await store.claims.mark_dead(at, "c")
        assert not (await found(store)).dead


async def test_a_new_sign_in_is_the_next_generation_and_voids_a_claim(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        at = await found(store)
        await claim(store, at, "c")
        await store.sign_in("s2")
        assert (await found(store)).generation == at.generation + 1
        assert await store.claims.swap(at, "c", NEXT) is None


@pytest.mark.parametrize(
    "state",
    [
        "as it was",
        "presented",
        "dead",
        "of another subject",
        "of another issuer",
        "of another object",
    ],
)
async def test_an_old_refresh_token_stays_in_use_only_where_it_surely_works(
    tmp_path: Path, state: str
) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        at = await found(store)
        if state == "presented":
            await claim(store, at, "c")
        elif state == "dead":
            await mark_dead(store, at)
            await sql(
                tmp_path, "UPDATE connections SET refresh_claim = NULL, refresh_claimed_at = NULL"
            )
        elif state == "of another subject":
            await sql(tmp_path, "UPDATE connections SET upstream_subject = 'bob'")
        elif state == "of another object":
            await sql(tmp_path, "UPDATE connections SET owner_uid = 'deleted'")
        elif state == "of another issuer":
            await sql(tmp_path, "UPDATE connections SET upstream_issuer = 'https://other'")
        await store.sign_in("s2", refresh_token=None)
        kept = (await found(store)).tokens.refresh_token
        assert kept == ("upstream refresh canary" if state == "as it was" else None)


async def of_session(
    store: Store, tsid: str = "s1", upstream: str = "acme", **differing: Any
) -> Connection | None:
    at = key()._replace(upstream=upstream)
    asked: dict[str, Any] = {
        "key": at,
        "client_id": "client",
        "resource": "https://r",
        "now": NOW,
    } | differing
    return await store.connections.of_session(tsid, asked.pop("key"), **asked)


async def test_a_session_is_read_with_its_own_connection_only(tmp_path: Path) -> None:
    holders = {
        "s1": key("u1", OWNER),
        "s2": key("u1", NEIGHBOUR),
        "s3": key("u1", ELSEWHERE),
        "s4": key("u4", OWNER),
    }
    async with stores(tmp_path) as (store, _):
        for tsid, at in holders.items():
            subject = f"subject of {at.user_id}"
            await store.sign_in(tsid, user=at.user_id, owner=at.owner, subject=subject)
        for tsid, at in holders.items():
            assert await of_session(store, tsid, key=at) == await store.connections.get(at)


@pytest.mark.parametrize(
    "differing",
    [
        {"tsid": "unknown"},
        {"tsid": "s2"},
        {"key": key("u2")},
        {"key": key("u1", NEIGHBOUR)},
        {"key": key("u1", ELSEWHERE)},
        {"client_id": "another"},
        {"resource": "https://r/"},
        {"now": NOW + 60},
    ],
    ids=str,
)
async def test_a_session_is_nobodys_but_its_own(tmp_path: Path, differing: dict[str, Any]) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in("s1")
        await store.sign_in("s2", user="u2", subject="bob")
        assert await of_session(store, now=NOW + 59.5) is not None
        with pytest.raises(NoSuchSession):
            await of_session(store, **differing)


async def test_a_session_that_was_ended_is_nobodys(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in("s1")
        await sql(tmp_path, f"UPDATE sessions SET ended_at = {NOW}")
        with pytest.raises(NoSuchSession):
            await of_session(store)


async def test_a_session_without_its_connection_is_still_found(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        for upstream in ("github", ""):
            assert await of_session(store, upstream=upstream) is None
        await sql(tmp_path, "DELETE FROM connections")
        assert await of_session(store) is None


async def test_connections_are_purged_when_no_live_session_holds_them(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed("s1")
        await store.redeemed("s2")
        await store.sign_in("s3", owner=NEIGHBOUR)
        await store.sign_in("s4", user="u4", subject="bob")
        assert await store.connections.purge_unused("u1", OWNER, NOW) == []
        await store.sessions.end("s1", NOW)
        assert await store.connections.purge_unused("u1", OWNER, NOW) == []
        await store.sessions.end("s2", NOW)
        (purged,) = await store.connections.purge_unused("u1", OWNER, NOW)
        assert purged.connection.tokens.refresh_token == "upstream refresh canary"
        assert await count(tmp_path, "connections") == 2
        assert await store.connections.purge_unused("u1", OWNER, NOW) == []


async def test_another_object_of_the_name_has_neither_session_nor_connection(
    tmp_path: Path,
) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed("s1")
        assert await of_session(store, owner_uids=("", "")) is not None
        assert await of_session(store, owner_uids=("new", "")) is not None
        with pytest.raises(NoSuchSession):
            await of_session(store, owner_uids=("new", "new"))
        await sql(tmp_path, "UPDATE connections SET owner_uid = 'new'")
        # A session of the deleted object finds no connection of the new one, and holds none.
        assert await of_session(store) is None
        assert await store.connections.of_user("u1", OWNER, "", "other") == {}
        assert set(await store.connections.of_user("u1", OWNER, "new")) == {"acme"}
        assert len(await store.connections.purge_unused("u1", OWNER, NOW)) == 1


async def test_a_session_that_is_over_holds_nothing(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        assert await store.connections.purge_unused("u1", OWNER, NOW + 999) == []
        assert len(await store.connections.purge_unused("u1", OWNER, NOW + 1000)) == 1


async def test_a_connection_nobody_can_open_is_purged_all_the_same(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        await store.sessions.end("s1", NOW)
        await sql(tmp_path, "UPDATE connections SET sealed_tokens = zeroblob(200)")
        assert await store.connections.purge_unused("u1", OWNER, NOW) == []
        assert await sql(tmp_path, "SELECT * FROM connections") == []


async def test_a_sign_in_replaces_a_connection_nobody_can_open(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        await sql(tmp_path, "UPDATE connections SET sealed_tokens = zeroblob(200)")
        await store.sign_in("s2")
        assert (await found(store)).tokens.refresh_token == "upstream refresh canary"


# What a thief who may also write to the file could try: each row opens only where it was sealed.
MOVES = [
    ("to another user", "UPDATE connections SET sealed_tokens = ? WHERE user_id = 'u3'", "u3"),
    ("to another generation", "UPDATE connections SET generation = 9 WHERE ? != ''", "u1"),
]


@pytest.mark.parametrize(("statement", "user"), [row[1:] for row in MOVES])
async def test_a_moved_row_does_not_open(tmp_path: Path, statement: str, user: str) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in("s1")
        await store.sign_in("s3", user="u3", subject="bob")
        ((sealed,),) = await sql(
            tmp_path, "SELECT sealed_tokens FROM connections WHERE user_id = 'u1'"
        )
        await sql(tmp_path, statement, sealed)
        with pytest.raises(DecryptionFailed):
            await store.connections.get(key(user))


@pytest.mark.parametrize("column", ["owner_name", "owner_namespace", "upstream"])
async def test_a_relabelled_row_does_not_open(tmp_path: Path, column: str) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        await sql(tmp_path, f"UPDATE connections SET {column} = 'other'")
        changed = key()
        owner = changed.owner
        if column != "upstream":
            owner = owner._replace(**{column.removeprefix("owner_"): "other"})
        upstream = "other" if column == "upstream" else changed.upstream
        with pytest.raises(DecryptionFailed):
            await store.connections.get(changed._replace(owner=owner, upstream=upstream))


async def test_a_row_of_yesterday_does_not_open_today(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        at = await found(store)
        ((old,),) = await sql(tmp_path, "SELECT sealed_tokens FROM connections")
        await claim(store, at, "c")
        await store.claims.swap(at, "c", NEXT)
        await sql(tmp_path, "UPDATE connections SET sealed_tokens = ?", old)
        with pytest.raises(DecryptionFailed):
            await found(store)


async def test_no_token_is_readable_at_rest(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        for canary in (b"canary", b"rt-s1", b"code-s1"):
            assert canary not in stored
