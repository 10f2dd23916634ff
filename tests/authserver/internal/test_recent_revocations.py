"""What a look at the database leaves in memory, and when polls may be answered from there."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authserver.internal.recent_revocations import KEPT_SECONDS, NamedRevocation, RecentRevocations
from authserver.storage.contract import StorageUnavailable
from authserver.storage.revocations import KnownRevocations, Revocation, Revocations
from chassis.spiffe_id import Workload
from tests.support.database_file import sql
from tests.support.deployment import deployed

OWNER, OTHER = Workload("mcp-servers", "notes"), Workload("mcp-servers", "tasks")
NOW = 1_800_000_000


def ids(recent: RecentRevocations, owner: Workload, moment: int) -> list[str]:
    return [members["id"] for members in recent.since(owner, moment).members]


def test_revocations_are_kept_by_owner_and_moment_and_forgotten_after_a_minute() -> None:
    recent = RecentRevocations()
    assert RecentRevocations().complete_since is None
    recent.add(OWNER, NamedRevocation.of(NOW - 5, "first", "h1"))
    recent.add(OWNER, NamedRevocation.of(NOW, "second", "h2"))
    recent.add(OTHER, NamedRevocation.of(NOW, "third", "h3"))
    recent.looked(NOW - 20, NOW)
    assert recent.complete_since == NOW - 20
    assert [recent.ended_at(moment) for moment in (NOW - 5, NOW - 4, NOW)] == [1, 0, 2]
    assert ids(recent, OWNER, NOW - 5) == ["first", "second"]
    assert ids(recent, OWNER, NOW - 4) == ["second"]
    assert ids(recent, OTHER, NOW - 20) == ["third"]
    recent.looked(NOW + 20, NOW + KEPT_SECONDS)
    assert recent.complete_since == NOW
    assert ids(recent, OWNER, 0) == ["second"]
    assert ("first" in recent, "second" in recent) == (False, True)


def added_after(recent: RecentRevocations, mark: str) -> set[str] | None:
    named = recent.added_after(OWNER, mark)
    return None if named is None else {members["id"] for members in named.members}


def test_a_mark_tells_what_was_added_later_whenever_that_ended() -> None:
    recent, another = RecentRevocations(), RecentRevocations()
    start = recent.mark
    recent.add(OWNER, NamedRevocation.of(NOW, "first", "h1"))
    recent.add(OTHER, NamedRevocation.of(NOW, "foreign", "h2"))
    middle = recent.mark
    recent.add(OWNER, NamedRevocation.of(NOW - 14, "late", "h3"))
    assert added_after(recent, start) == {"first", "late"}
    assert added_after(recent, middle) == {"late"}
    assert added_after(recent, recent.mark) == set()
    assert [added_after(recent, mark) for mark in (another.mark, "")] == [None, None]
    recent.looked(NOW, NOW + KEPT_SECONDS + 1)
    assert added_after(recent, start) == set()


def test_a_clock_that_went_back_leaves_memory_complete_from_the_earlier_moment() -> None:
    recent = RecentRevocations()
    recent.looked(NOW - 20, NOW)
    recent.looked(NOW - 3620, NOW - 3600)
    assert recent.complete_since == NOW - 3620


def test_the_hash_says_whether_the_same_ended_in_whatever_order_it_came() -> None:
    first, second = (NamedRevocation.of(NOW, name, name) for name in ("first", "second"))
    one_way, other_way, empty = RecentRevocations(), RecentRevocations(), RecentRevocations()
    for recent, order in ((one_way, (first, second)), (other_way, (second, first))):
        for revocation in order:
            recent.add(OWNER, revocation)
    assert one_way.since(OWNER, NOW).hash == other_way.since(OWNER, NOW).hash != ""
    apart = RecentRevocations()
    apart.add(OWNER, NamedRevocation.of(NOW - 1, "second", "second"))
    apart.add(OWNER, first)
    assert apart.since(OWNER, NOW - 1).hash == one_way.since(OWNER, NOW).hash
    one_way.add(OWNER, NamedRevocation.of(NOW, "third", "h3"))
    assert one_way.since(OWNER, NOW).hash != other_way.since(OWNER, NOW).hash
    assert empty.since(OWNER, NOW).hash == ""


async def test_polls_read_no_storage_for_as_long_as_the_last_look_counts(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        feed = world.server.revocation_feed
        feed.poll_seconds = 0
        cursor = (await feed.poll(OWNER, None))["cursor"]
        user = await world.signed_in()
        await world.call(
            "POST", "/oauth/revoke", data={"client_id": user.client_id, "token": user.access_token}
        )
        await feed.look()
        await sql(tmp_path, "ALTER TABLE revocations RENAME TO elsewhere")
        world.clock.advance(3)
        answer = await feed.poll(OWNER, cursor)
        assert len(answer["ended"]) == 2
        assert (await feed.poll(OWNER, answer["cursor"]))["ended"] == []
        world.clock.advance(1)
        with pytest.raises(StorageUnavailable):
            await feed.poll(OWNER, cursor)


async def test_an_answer_from_memory_covers_no_more_than_the_look_saw(tmp_path: Path) -> None:
    """Otherwise what ends between the look and the answer could be old for the next poll."""
    async with deployed(tmp_path) as world:
        feed = world.server.revocation_feed
        feed.poll_seconds = 0
        cursor = (await feed.poll(OWNER, None))["cursor"]
        await feed.look()
        looked_at = int(world.clock())
        world.clock.advance(3)
        assert (await feed.poll(OWNER, cursor))["cursor"].split(".")[1] == str(looked_at)


async def test_a_look_that_breaks_off_wakes_those_whose_revocations_it_has_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the next look they are known, and nobody would be woken for them."""
    whole = Revocations.since

    async def broken(
        revocations: Revocations, moment: int, *, known: KnownRevocations
    ) -> AsyncIterator[list[Revocation]]:
        async for page in whole(revocations, moment, known=known):
            yield page
        raise StorageUnavailable

    async with deployed(tmp_path) as world:
        feed = world.server.revocation_feed
        await feed.look()
        cursor = (await feed.poll(OWNER, None))["cursor"]
        polling = asyncio.create_task(feed.poll(OWNER, cursor))
        while not feed.waiting:
            await asyncio.sleep(0)
        user = await world.signed_in()
        await world.call(
            "POST", "/oauth/revoke", data={"client_id": user.client_id, "token": user.access_token}
        )
        monkeypatch.setattr(Revocations, "since", broken)
        with pytest.raises(StorageUnavailable):
            await feed.look()
        async with asyncio.timeout(5):
            assert len((await polling)["ended"]) == 2
