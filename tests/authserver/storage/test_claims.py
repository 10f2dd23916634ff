"""The claim on a refresh token: whoever lost it changes nothing any more."""

import pytest

from authserver.storage.claim_rows import StaleClaimRule
from authserver.storage.contract import Database
from tests.support.storage_fixtures import NOW, Store, tokens


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


async def test_the_swap_needs_the_claim(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.swap(found, "nobody's", tokens()) is None
    assert await store.claims.claim(found, "mine", NOW, StaleClaimRule())
    assert await store.claims.swap(found, "other", tokens()) is None
    stored = await store.claims.swap(found, "mine", tokens("rt-2"))
    assert stored == await store.connections.get(found.key)
    assert await store.claims.swap(found, "mine", tokens()) is None


async def test_a_claim_given_back_can_be_taken_again(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.claim(found, "mine", NOW, StaleClaimRule())
    await store.claims.release_claim(found, "other")
    assert not await store.claims.claim(found, "next", NOW, StaleClaimRule())
    await store.claims.release_claim(found, "mine")
    assert await store.claims.claim(found, "next", NOW, StaleClaimRule())


async def test_a_claim_is_never_taken_over_without_leave(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.claim(found, "dead", NOW, StaleClaimRule())
    assert not await store.claims.claim(found, "next", NOW + 10**6, StaleClaimRule())
    await store.claims.mark_uncertain(found, "dead")
    assert not await store.claims.claim(found, "next", NOW + 10**6, StaleClaimRule())


async def test_a_grace_counts_from_the_first_claim_however_often_it_was_taken_over(
    store: Store,
) -> None:
    found = await store.connected()
    left = StaleClaimRule(claimed_before=NOW + 100, first_claimed_after=NOW)
    assert await store.claims.claim(found, "first", NOW, StaleClaimRule())
    assert await store.claims.claim(found, "second", NOW + 50, left)
    late = StaleClaimRule(claimed_before=NOW + 200, first_claimed_after=NOW + 1)
    assert not await store.claims.claim(found, "third", NOW + 60, late)


@pytest.mark.parametrize(
    "moment", [NOW + 1, NOW, NOW - 5], ids=["later", "in the same second", "by a slow clock"]
)
async def test_a_claim_that_was_taken_over_is_left_behind_again_and_never_given_back(
    store: Store, moment: int
) -> None:
    """Whoever held it first may have presented the token."""
    found, left = await store.connected(), StaleClaimRule(1, first_claimed_after=NOW - 10)
    assert await store.claims.claim(found, "first", NOW, StaleClaimRule())
    await store.claims.mark_uncertain(found, "first")
    assert await store.claims.claim(found, "second", moment, left)
    await store.claims.release_claim(found, "second")
    assert not await store.claims.claim(found, "third", NOW + 1, StaleClaimRule())
    late = StaleClaimRule(1, first_claimed_after=NOW + 1)
    assert not await store.claims.claim(found, "third", NOW + 1, late)
    assert await store.claims.claim(found, "third", NOW + 1, left)


async def test_the_holder_of_a_buried_claim_brings_the_connection_back(store: Store) -> None:
    """It was slow, not dead: what the upstream gave it are the only tokens there are."""
    found = await store.connected()
    assert await store.claims.claim(found, "slow", NOW, StaleClaimRule())
    assert await store.claims.mark_dead(found, "slow")
    assert not await store.claims.claim(found, "next", NOW, StaleClaimRule())
    stored = await store.claims.swap(found, "slow", tokens("rt-2"))
    assert stored is not None
    assert not stored.dead
    assert stored == await store.connections.get(found.key)


async def test_a_claim_is_buried_only_while_it_is_the_last_one(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.claim(found, "first", NOW, StaleClaimRule())
    assert await store.claims.claim(
        found, "second", NOW + 50, StaleClaimRule(claimed_before=NOW + 1)
    )
    assert not await store.claims.mark_dead(found, "first")
    assert await store.claims.mark_dead(found, "second")
