"""The claim on a refresh token: whoever lost it changes nothing any more."""

import pytest

from authserver.storage.contract import Database
from tests.support.storage_fixtures import NOW, Store, tokens


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


async def test_the_swap_needs_the_claim(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.swap(found, "nobody's", tokens()) is None
    assert await store.claims.claim(found, "mine", NOW)
    assert await store.claims.swap(found, "other", tokens()) is None
    stored = await store.claims.swap(found, "mine", tokens("rt-2"))
    assert stored == await store.connections.get(found.key)
    assert await store.claims.swap(found, "mine", tokens()) is None


async def test_a_claim_given_back_can_be_taken_again(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.claim(found, "mine", NOW)
    await store.claims.release_claim(found, "other")
    assert not await store.claims.claim(found, "next", NOW)
    await store.claims.release_claim(found, "mine")
    assert await store.claims.claim(found, "next", NOW)


async def test_a_claim_is_taken_over_only_when_it_is_overdue(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.claim(found, "dead", NOW)
    late = NOW + 10**6
    assert await store.claims.claim(found, "next", late, overdue_before=NOW) is None
    taken = await store.claims.claim(found, "next", late, overdue_before=NOW + 1)
    assert taken is not None
    assert taken.uncertain_since == NOW


async def test_a_first_claim_is_certain(store: Store) -> None:
    found = await store.connected()
    taken = await store.claims.claim(found, "first", NOW)
    assert taken is not None
    assert taken.uncertain_since is None
    assert await store.claims.claimed_at(found, "first") == NOW
    assert await store.claims.claimed_at(found, "other") is None
    await store.claims.release_claim(found, "first")
    assert await store.claims.claimed_at(found, "first") is None


@pytest.mark.parametrize(
    "moment", [NOW + 1, NOW, NOW - 5], ids=["later", "in the same second", "by a slow clock"]
)
async def test_an_unknown_outcome_stays_unknown_through_failures_that_change_nothing(
    store: Store, moment: int
) -> None:
    """Whoever held it first may have presented the token."""
    found = await store.connected()
    assert await store.claims.claim(found, "first", NOW)
    await store.claims.mark_uncertain(found, "first")
    for handle in ("second", "third"):
        again = await store.claims.claim(found, handle, moment)
        assert again is not None
        assert again.uncertain_since is not None
        await store.claims.release_claim(found, handle)
    latest = await store.connections.get(found.key)
    assert latest is not None
    assert latest.first_claimed_at is not None
    assert latest.refresh_claim is None


async def test_refusals_are_counted_until_the_next_generation(store: Store) -> None:
    found = await store.connected()
    for number in range(2):
        assert await store.claims.claim(found, f"c{number}", NOW + number)
        await store.claims.release_claim(found, f"c{number}", refused_at=NOW + number)
    latest = await store.connections.get(found.key)
    assert latest is not None
    assert (latest.refusals, latest.refused_since) == (2, NOW)
    assert await store.claims.claim(found, "last", NOW + 9)
    stored = await store.claims.swap(found, "last", tokens("rt-2"))
    assert stored is not None
    assert stored == await store.connections.get(found.key)
    assert (stored.refusals, stored.refused_since) == (0, None)


async def test_refusals_of_one_moment_do_not_complete_the_count(store: Store) -> None:
    found = await store.connected()
    for moment, counted in ((0, 1), (1, 2), (2, 2), (299, 2), (300, 3), (301, 4)):
        assert await store.claims.claim(found, f"c{moment}", NOW + moment)
        await store.claims.release_claim(found, f"c{moment}", refused_at=NOW + moment)
        latest = await store.connections.get(found.key)
        assert latest is not None
        assert (latest.refusals, latest.refused_since) == (counted, NOW)


async def test_what_was_rejected_is_rejected_for_its_generation_alone(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.claim(found, "c", NOW)
    assert await store.claims.swap(found, "c", tokens("rt-2"))
    await store.claims.mark_rejected(found, NOW)  # late
    latest = await store.connections.get(found.key)
    assert latest is not None
    assert not latest.rejected
    await store.claims.mark_rejected(latest, NOW)
    latest = await store.connections.get(found.key)
    assert latest is not None
    assert latest.rejected
    assert latest.dead


async def test_the_holder_of_a_buried_claim_brings_the_connection_back(store: Store) -> None:
    """It was slow, not dead: what the upstream gave it are the only tokens there are."""
    found = await store.connected()
    assert await store.claims.claim(found, "slow", NOW)
    assert await store.claims.mark_dead(found, "slow")
    assert not await store.claims.claim(found, "next", NOW)
    stored = await store.claims.swap(found, "slow", tokens("rt-2"))
    assert stored is not None
    assert not stored.dead
    assert stored == await store.connections.get(found.key)


async def test_a_claim_is_buried_only_while_it_is_the_last_one(store: Store) -> None:
    found = await store.connected()
    assert await store.claims.claim(found, "first", NOW)
    assert await store.claims.claim(found, "second", NOW + 50, overdue_before=NOW + 1)
    assert not await store.claims.mark_dead(found, "first")
    assert await store.claims.mark_dead(found, "second")
