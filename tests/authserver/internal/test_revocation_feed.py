"""The revocation feed at its door: what an owner's sidecars hear, when, and nobody else does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from authserver.internal import revocation_feed
from authserver.internal.revocation_feed import RevocationFeed
from chassis.spiffe_id import Workload
from tests.support.database_file import sql
from tests.support.deployment import Answer, Deployment, SignedIn, deployed
from tests.support.workloads import (
    FORM,
    NOTES_SERVER,
    TASKS_SERVER,
    Line,
    audited,
    line,
    reconfigure,
    replica,
)

FEED = "/internal/revocations"


@pytest.fixture(params=["from_storage", "from_memory"], autouse=True)
def answered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls are answered from storage where nobody has looked yet, and from what a look found."""
    if request.param == "from_storage":
        return
    answer = RevocationFeed.poll

    async def poll(feed: RevocationFeed, owner: Workload, cursor: str | None) -> dict[str, Any]:
        await feed.look()
        return await answer(feed, owner, cursor)

    monkeypatch.setattr(RevocationFeed, "poll", poll)


async def poll(sidecar: Line, cursor: str | None = None) -> dict[str, Any]:
    answer = await sidecar.send({} if cursor is None else {"cursor": cursor}, path=FEED)
    assert answer.status == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json()


async def revoke(world: Deployment, user: SignedIn) -> None:
    answer = await world.call(
        "POST", "/oauth/revoke", data={"client_id": user.client_id, "token": user.access_token}
    )
    assert answer.status == 200


def is_marked(answer: dict[str, Any]) -> bool:
    """Whether it was answered from memory, which has marks."""
    return str(answer["cursor"]).split(".")[3] != ""


def handles(answer: dict[str, Any]) -> set[str]:
    return {one["handle"] for one in answer["ended"]}


async def handles_of(sidecar: Line, user: SignedIn) -> set[str]:
    """What the exchange answer of this user's JWT named."""
    released = (await sidecar.exchange(user.access_token)).json()
    return {released["session"], released["connection"]}


@asynccontextmanager
async def waiting(
    world: Deployment, sidecar: Line, cursor: str
) -> AsyncIterator[asyncio.Task[Any]]:
    """A poll that waits at the authserver."""
    before = world.server.revocation_feed.waiting
    task = asyncio.create_task(poll(sidecar, cursor))
    while world.server.revocation_feed.waiting == before:
        await asyncio.sleep(0)
    yield task
    await task


async def test_a_revocation_names_the_handles_of_the_exchange_answer(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
        alices, bobs = await handles_of(sidecar, alice), await handles_of(sidecar, bob)
        start = await poll(sidecar)
        assert start["ended"] == []
        await revoke(world, alice)
        answer = await poll(sidecar, start["cursor"])
        assert handles(answer) == alices
        assert handles(answer).isdisjoint(bobs)
        assert "gap" not in answer


async def test_a_session_that_is_not_the_last_one_leaves_the_connection(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        first, second = await world.signed_in(), await world.signed_in()
        of_first, of_second = await handles_of(sidecar, first), await handles_of(sidecar, second)
        cursor = (await poll(sidecar))["cursor"]
        await revoke(world, first)
        assert handles(await poll(sidecar, cursor)) == of_first - of_second


async def test_a_poll_that_waits_is_answered_when_something_ends(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar, line(world) as other:
        alice = await world.signed_in()
        alices = await handles_of(other, alice)
        cursor = (await poll(sidecar))["cursor"]
        async with waiting(world, sidecar, cursor) as answer:
            await revoke(world, alice)
            assert not answer.done()
            await world.server.revocation_feed.look()
            assert handles(await answer) == alices
        assert world.server.revocation_feed.waiting == 0


async def test_another_replica_that_looks_hears_of_it(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in()
        async with replica(world) as second, line(second) as sidecar:
            alices = await handles_of(sidecar, alice)
            cursor = (await poll(sidecar))["cursor"]
            async with waiting(second, sidecar, cursor) as answer:
                await revoke(world, alice)
                await second.server.revocation_feed.look()
                assert handles(await answer) == alices


async def test_an_ending_of_another_owner_is_neither_named_nor_wakes(
    tmp_path: Path,
) -> None:
    async with (
        deployed(tmp_path) as world,
        line(world) as notes,
        line(world, TASKS_SERVER) as tasks,
    ):
        alice = await world.signed_in()
        world.server.revocation_feed.poll_seconds = 0  # what finds nothing is answered at once
        starts = [await poll(notes), await poll(tasks)]
        await revoke(world, alice)
        heard = [
            await poll(sidecar, start["cursor"])
            for sidecar, start in zip((notes, tasks), starts, strict=True)
        ]
        assert (len(heard[0]["ended"]), heard[1]["ended"]) == (2, [])
        assert (await poll(tasks))["ended"] == []


async def test_what_was_named_does_not_end_the_next_poll_but_is_repeated_for_15_seconds(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
        alices, bobs = await handles_of(sidecar, alice), await handles_of(sidecar, bob)
        world.server.revocation_feed.poll_seconds = 0
        start = await poll(sidecar)
        await revoke(world, alice)
        first = await poll(sidecar, start["cursor"])
        quiet = await poll(sidecar, first["cursor"])
        assert quiet["ended"] == []
        world.clock.advance(15)
        await revoke(world, bob)
        both = await poll(sidecar, quiet["cursor"])
        assert handles(both) == alices | bobs
        ids = {one["id"] for one in both["ended"]}
        assert {one["id"] for one in first["ended"]} < ids
        world.clock.advance(16)
        later = await poll(sidecar, both["cursor"])
        assert later["ended"] == []
        carol = await world.signed_in("alice")
        carols = await handles_of(sidecar, carol)
        await revoke(world, carol)
        assert handles(await poll(sidecar, later["cursor"])) == carols


async def test_hundreds_are_not_repeated_to_whom_this_replica_has_named_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are repeated after a lost answer, and by a replica that did not give it."""
    monkeypatch.setattr(revocation_feed, "MAX_REPEATED", 2)
    async with (
        deployed(tmp_path) as world,
        line(world) as sidecar,
        replica(world) as second,
        line(second) as other,
    ):
        names = ("alice", "bob", "alice")
        alice, bob, carol = [await world.signed_in(name) for name in names]
        start = await poll(sidecar)
        await revoke(world, alice)
        first = await poll(sidecar, start["cursor"])
        await revoke(world, bob)
        next_one = await poll(sidecar, first["cursor"])
        ids = [{one["id"] for one in answer["ended"]} for answer in (first, next_one)]
        assert [len(named) for named in ids] == [1, 2 if is_marked(first) else 3]
        lost = await poll(sidecar, first["cursor"])
        assert {one["id"] for one in lost["ended"]} == ids[1]
        await revoke(world, carol)
        whole = await poll(other, next_one["cursor"])
        assert {one["id"] for one in whole["ended"]} > ids[0] | ids[1]
        last = await poll(sidecar, next_one["cursor"])
        assert ids[0] | ids[1] | {one["id"] for one in last["ended"]} == {
            one["id"] for one in whole["ended"]
        }
        assert (await poll(sidecar, whole["cursor"] + "0"))["gap"] is True


async def test_an_ending_that_commits_late_is_not_missed(tmp_path: Path) -> None:
    """Its row is older than an answer that could not see it."""
    async with deployed(tmp_path) as world, line(world) as sidecar:
        alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
        alices = await handles_of(sidecar, alice)
        cursor = (await poll(sidecar))["cursor"]
        await revoke(world, alice)
        late = await sql(tmp_path, "SELECT * FROM revocations")
        await sql(tmp_path, "DELETE FROM revocations")
        world.clock.advance(14)
        await revoke(world, bob)
        cursor = (await poll(sidecar, cursor))["cursor"]
        for row in late:
            await sql(tmp_path, f"INSERT INTO revocations VALUES ({','.join('?' * 8)})", *row)
        assert handles(await poll(sidecar, cursor)) >= alices


async def test_an_unknown_or_old_cursor_is_answered_with_everything_kept(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        alice = await world.signed_in()
        alices = await handles_of(sidecar, alice)
        cursor = (await poll(sidecar))["cursor"]
        database_id, moment, named, mark, tag = cursor.split(".")
        moved = f"{database_id}.{int(moment) + 580}.{named}.{mark}.{tag}"
        marked = f"{database_id}.{moment}.{named}.{'f' * 16}-99.{tag}"
        await revoke(world, alice)
        async with line(world, TASKS_SERVER) as tasks:
            foreign = (await poll(tasks))["cursor"]
        world.clock.advance(580)
        for unknown in (None, "", "x", cursor + "0", moved, marked, foreign):
            answer = await poll(sidecar, unknown)
            assert (handles(answer), answer["gap"]) == (alices, True), unknown
        old = await poll(sidecar, cursor)
        assert "gap" not in old
        world.clock.advance(10)
        assert (await poll(sidecar, cursor))["gap"] is True


async def test_only_a_replaced_database_resets(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        cursor = (await poll(sidecar))["cursor"]
        await sql(tmp_path, "DELETE FROM database_identity")  # as `restored` does
        await world.server.revocation_feed.look()
        answer = await poll(sidecar, cursor)
        assert (answer["ended"], answer["reset"]) == ([], True)
        again = await poll(sidecar, None)
        assert "reset" not in again
        async with replica(world) as second, line(second) as other:
            assert "reset" not in await poll(other, None)


async def test_more_endings_than_fit_into_an_answer_are_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_feed, "MAX_NAMED", 3)
    async with deployed(tmp_path) as world, line(world) as sidecar:
        cursor = (await poll(sidecar))["cursor"]
        for user in ("alice", "bob"):
            await revoke(world, await world.signed_in(user))
        answer = await poll(sidecar, cursor)
        assert (answer["ended"], answer["everything"]) == ([], True)


async def test_endings_are_kept_for_ten_minutes(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        await revoke(world, await world.signed_in())
        world.clock.advance(599)
        await world.server.housekeeping.round()
        assert len((await poll(sidecar))["ended"]) == 2
        world.clock.advance(1)
        await world.server.housekeeping.round()
        assert (await poll(sidecar))["ended"] == []


async def test_draining_answers_who_waits(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        cursor = (await poll(sidecar))["cursor"]
        async with waiting(world, sidecar, cursor) as answer:
            world.server.revocation_feed.release()
            assert (await answer)["ended"] == []
        assert (await poll(sidecar, cursor))["ended"] == []


async def test_storage_that_is_down_is_503_and_no_ending(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        cursor = (await poll(sidecar))["cursor"]
        await sql(tmp_path, "ALTER TABLE revocations RENAME TO elsewhere")
        answer = await sidecar.send({"cursor": cursor}, path=FEED)
        assert (answer.status, answer.json()["error"]) == (503, "temporarily_unavailable")


async def test_who_may_not_exchange_may_not_poll(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        reconfigure(world, allowedWorkloads={"namespaces": ["elsewhere"], "names": ["*"]})
        async with replica(world) as strict, line(strict) as sidecar:
            with audited(caplog) as trail:
                answer = await sidecar.send({}, path=FEED)
        assert (answer.status, answer.json()["error"]) == (403, "unauthorized_client")
        event = trail.events[-1]
        assert (event["action"], event["reason"]) == ("revocation_poll", "workload_not_allowed")


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        (FEED, "GET", {}, 400),
        (f"{FEED}?cursor=x", "POST", {"Content-Type": FORM}, 400),
        (FEED, "POST", {"Content-Type": "application/json"}, 400),
        (f"{FEED}/", "POST", {"Content-Type": FORM}, 404),
    ],
)
async def test_a_poll_has_one_form(
    tmp_path: Path, path: str, method: str, headers: dict[str, str], status: int
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        answer: Answer = await sidecar.send(b"", path=path, method=method, headers=headers)
        assert answer.status == status


async def test_no_answer_and_no_log_names_a_user_or_session(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with deployed(tmp_path) as world, line(world, NOTES_SERVER) as sidecar:
        await revoke(world, await world.signed_in())
        answer = await poll(sidecar)
        rows = await sql(tmp_path, "SELECT tsid, user_id FROM revocations")
        secrets = {value for row in rows for value in row if value}
        assert len(secrets) == 2
        said = str(answer) + capfd.readouterr().err
        assert not [secret for secret in secrets if secret in said]
