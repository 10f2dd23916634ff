"""One leader, by Lease: who cannot renew stops by itself, before anybody else may begin."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from controller.api.kinds import LEASE
from controller.api.objects import Key
from controller.cluster import ApiError
from controller.leader_election import LeaderElection, LeaderLost
from tests.controller.samples import NOW, stamp
from tests.controller.test_watch import until
from tests.fakes.kubernetes_api import FakeApi

KEY = Key("tokenward-system", "tokenward-controller")


class Time:
    """A clock that a test moves; who pauses goes on when it has moved far enough."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    async def pause(self, seconds: float) -> None:
        event = asyncio.Event()
        self._sleepers.append((self.seconds + seconds, event))
        await event.wait()

    async def advance(self, seconds: float, step: float = 0.5) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds = min(end, self.seconds + step)
            for when, event in self._sleepers:
                if when <= self.seconds:
                    event.set()
            self._sleepers = [one for one in self._sleepers if not one[1].is_set()]
            for _ in range(60):
                await asyncio.sleep(0)


class Replica:
    """`frozen` stands for a process that was stopped: its pauses do not end."""

    def __init__(self, name: str, api: FakeApi, time: Time) -> None:
        self.name, self.leads, self.led = name, False, 0
        self.election = LeaderElection(
            api, KEY, name, now=time.now, monotonic=time.monotonic, pause=self._pausing(time)
        )
        self.frozen = asyncio.Event()
        self.frozen.set()
        self.task = asyncio.create_task(self.election.run(self._lead))

    def _pausing(self, time: Time) -> Callable[[float], Awaitable[None]]:
        async def pause(seconds: float) -> None:
            await time.pause(seconds)
            await self.frozen.wait()

        return pause

    async def _lead(self) -> None:
        self.leads, self.led = True, self.led + 1
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False

    async def end(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def pair() -> tuple[FakeApi, Time, Replica, Replica]:
    api, time = FakeApi(stamp), Time()
    first = Replica("first", api, time)
    await until(lambda: first.leads)
    second = Replica("second", api, time)
    await time.advance(30)
    assert first.leads
    assert not second.leads
    return api, time, first, second


async def test_a_leader_renews_and_nobody_else_leads() -> None:
    api, time, first, second = await pair()
    spec = api.found(LEASE, KEY)["spec"]
    assert spec["holderIdentity"] == "first"
    assert spec["leaseDurationSeconds"] == 10
    assert spec["renewTime"].endswith("Z")
    renewed = datetime.fromisoformat(spec["renewTime"].replace("Z", "+00:00"))
    assert time.now() - renewed < timedelta(seconds=4)
    await first.end()
    await second.end()


async def test_a_leader_that_ends_hands_over_at_once() -> None:
    _, time, first, second = await pair()
    await first.end()
    await time.advance(2.5)
    assert second.leads
    await second.end()


async def test_a_leader_that_dies_is_followed_within_fifteen_seconds() -> None:
    api, time, first, second = await pair()
    first.frozen.clear()
    await time.advance(15)
    assert second.leads
    assert api.found(LEASE, KEY)["spec"]["leaseTransitions"] == 2
    first.frozen.set()
    await first.end()
    await second.end()


async def test_a_leader_that_cannot_renew_stops_before_anybody_can_begin() -> None:
    api, time, first, second = await pair()

    def cut_off(verb: str, kind: object, key: Key) -> None:
        raise ApiError(0, "Unreachable", "")

    api.refuse = cut_off
    stopped = None
    for tenth in range(200):
        await time.advance(0.1, step=0.1)
        if not first.leads and stopped is None:
            stopped = tenth
            with pytest.raises(LeaderLost):
                first.election.check()
    assert stopped is not None
    assert stopped <= 85  # six seconds after the last renewal, and one round of two
    api.refuse = lambda *_: None
    await time.advance(15)
    assert [first.leads, second.leads].count(True) == 1
    await first.end()
    await second.end()


async def test_a_process_that_was_stopped_and_goes_on_may_write_nothing() -> None:
    _, time, first, second = await pair()
    first.election.check()
    first.frozen.clear()  # SIGSTOP
    await time.advance(20)
    # SIGCONT: before it has run another line, it asks.
    with pytest.raises(LeaderLost):
        first.election.check()
    assert second.leads
    first.frozen.set()
    await time.advance(5)
    assert not first.leads
    assert second.leads
    await first.end()
    await second.end()


async def test_a_conflict_on_the_lease_is_no_leadership() -> None:
    api, time = FakeApi(stamp), Time()

    def faster(verb: str, kind: object, key: Key) -> None:
        if verb in ("create", "update"):
            raise ApiError(409, "Conflict", "")

    api.refuse = faster
    replica = Replica("first", api, time)
    await time.advance(30)
    assert not replica.leads
    assert not replica.election.holds
    await replica.end()


async def test_a_term_that_lapsed_is_over_although_the_lease_is_renewed_later() -> None:
    """Workers that saw the lapse have ended; the next term begins with everything."""
    api, time = FakeApi(stamp), Time()
    replica = Replica("first", api, time)
    await until(lambda: replica.leads)
    replica.frozen.clear()  # a machine without time for us
    await time.advance(8)
    with pytest.raises(LeaderLost):
        replica.election.check()
    replica.frozen.set()
    await time.advance(3)
    assert replica.leads
    assert replica.led == 2
    await replica.end()
