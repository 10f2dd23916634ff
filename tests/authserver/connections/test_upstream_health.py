"""How many calls may be on the way to an upstream, as its answers come and go."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.connections.upstream_health import Place, UpstreamHealth
from authserver.upstream.contract import Unavailable
from tests.fakes.clock import ManualClock

SLOW = 2.0


class Rig:
    """An upstream whose calls a test begins and ends."""

    def __init__(self, slow_call: float = SLOW) -> None:
        self.clock, self.monotonic = ManualClock(1000.0), ManualClock(0.0)
        self.health = UpstreamHealth(
            slow_call, self.clock, self.monotonic, uniform=lambda _, longest: longest
        )

    async def call(self, *, fate_unknown: bool = False) -> Place:
        place = await self.health.place("acme", fate_unknown=fate_unknown)
        place.call()
        return place

    async def refused(self, *, fate_unknown: bool = False) -> None:
        with pytest.raises(Unavailable, match="upstream_backing_off"):
            await self.call(fate_unknown=fate_unknown)

    def succeed(self, place: Place) -> None:
        place.give_back()
        self.health.answered("acme", success=True)

    def fail(self, place: Place, *, unknown: bool = False) -> None:
        place.give_back()
        self.health.failed("acme", unknown=unknown)

    def pass_(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.monotonic.advance(seconds)

    async def working(self) -> None:
        self.succeed(await self.call())

    async def troubled(self, *, unknown: bool = False) -> None:
        """Three failures; the pause is a second."""
        for _ in range(3):
            self.fail(await self.call(), unknown=unknown)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_upstream_that_works_takes_any_number_of_calls() -> None:
    rig = Rig()
    await rig.working()
    assert len([await rig.call() for _ in range(50)]) == 50


async def test_the_first_call_of_a_process_goes_alone_and_the_others_wait_for_it() -> None:
    rig = Rig(slow_call=60)
    first = await rig.call()
    waiting = [asyncio.create_task(rig.call()) for _ in range(10)]
    await turns()
    assert not any(task.done() for task in waiting)
    rig.succeed(first)
    assert len(await asyncio.gather(*waiting)) == 10


async def test_after_a_failure_the_next_one_waiting_goes_alone() -> None:
    rig = Rig(slow_call=60)
    first = await rig.call()
    waiting = [asyncio.create_task(rig.call()) for _ in range(10)]
    await turns()
    rig.fail(first)
    await turns()
    gone = [task for task in waiting if task.done()]
    assert len(gone) == 1
    for _ in range(2):
        place = next(task for task in waiting if task.done() and task.exception() is None).result()
        waiting = [task for task in waiting if not task.done()]
        rig.fail(place)
        await turns()
    refusals = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(refusal) for refusal in refusals] == ["upstream_backing_off"] * 8


async def test_a_place_counts_before_the_call_begins() -> None:
    """Between it and the call the claim is written; nobody else may slip in meanwhile."""
    rig = Rig(slow_call=0)
    await rig.troubled()
    rig.pass_(1)
    place = await rig.health.place("acme", fate_unknown=False)
    await rig.refused()
    place.give_back()
    await rig.call()


async def test_a_refusal_lets_the_next_one_go_and_not_everybody() -> None:
    rig = Rig(slow_call=0)
    place = await rig.call()
    place.give_back()
    rig.health.answered("acme", success=False)
    await rig.call()
    await rig.refused()


async def test_one_failure_after_a_refusal_is_trouble_again() -> None:
    rig = Rig(slow_call=0)
    await rig.troubled()
    rig.pass_(1)
    place = await rig.call()
    place.give_back()
    rig.health.answered("acme", success=False)
    rig.fail(await rig.call())
    await rig.refused()
    rig.pass_(1)
    rig.succeed(await rig.call())
    rig.fail(await rig.call())
    await rig.call()  # a success takes all failures back


async def test_a_call_that_takes_long_stops_all_others_of_an_upstream_that_worked() -> None:
    rig = Rig()
    await rig.working()
    slow = await rig.call()
    rig.pass_(SLOW + 0.1)
    assert rig.health.doubtful("acme")
    await rig.refused()
    rig.succeed(slow)
    assert not rig.health.doubtful("acme")
    await rig.call()
    await rig.call()


async def test_after_one_failure_no_token_that_serves_is_put_at_risk() -> None:
    rig = Rig()
    await rig.working()
    assert not rig.health.doubtful("acme")
    rig.fail(await rig.call())
    assert rig.health.doubtful("acme")
    await rig.working()
    assert not rig.health.doubtful("acme")


async def test_a_token_of_unknown_fate_is_the_probe_before_one_that_is_not_at_risk() -> None:
    rig = Rig(slow_call=0)
    await rig.troubled(unknown=True)
    rig.pass_(1)
    await rig.refused()
    rig.fail(await rig.call(fate_unknown=True), unknown=True)
    rig.pass_(2 + 2.9)
    await rig.refused()
    rig.pass_(0.2)
    await rig.call()  # nobody else asks, so that another is put at risk after all


async def test_where_no_fate_is_unknown_nobody_has_a_head_start() -> None:
    rig = Rig(slow_call=0)
    await rig.troubled()
    rig.pass_(1)
    await rig.call()


async def test_a_place_taken_while_it_worked_does_not_send_beside_another_once_it_fails() -> None:
    rig = Rig()
    await rig.working()
    first, second, third = [await rig.call() for _ in range(3)]
    assert first.may_send()
    rig.fail(third)
    assert not second.may_send()
    assert second.withheld
    second.give_back()
    rig.succeed(first)
    again = await rig.call()
    assert again.may_send()
    assert not again.withheld


async def test_of_places_taken_while_it_worked_one_is_sent_once_it_fails() -> None:
    rig = Rig()
    await rig.working()
    places = [await rig.call() for _ in range(5)]
    rig.fail(places.pop())
    assert [place.may_send() for place in places] == [True, False, False, False]


STEPS: dict[str, Callable[[Rig, list[Place]], Awaitable[None]]] = {}


def step(function: Callable[[Rig, list[Place]], Awaitable[None]]) -> None:
    STEPS[function.__name__] = function


@step
async def ask(rig: Rig, under_way: list[Place]) -> None:
    try:
        under_way.append(await rig.call(fate_unknown=len(under_way) % 2 == 0))
    except Unavailable:
        return


@step
async def end_well(rig: Rig, under_way: list[Place]) -> None:
    if under_way:
        rig.succeed(under_way.pop(0))


@step
async def end_badly(rig: Rig, under_way: list[Place]) -> None:
    if under_way:
        rig.fail(under_way.pop(0), unknown=True)


@step
async def wait(rig: Rig, under_way: list[Place]) -> None:
    rig.pass_(1.5)


@given(st.lists(st.sampled_from(["ask", "ask", "end_well", "end_badly", "wait"]), max_size=60))
@settings(max_examples=200, deadline=None)
def test_an_upstream_that_does_not_work_never_gets_a_second_call(steps: list[str]) -> None:
    """And one that is asked for long enough gets one in the end."""

    async def run() -> None:
        rig, works = Rig(slow_call=0), False
        under_way: list[Place] = []
        for name in steps:
            before = len(under_way)
            await STEPS[name](rig, under_way)
            if name == "ask" and len(under_way) > before:
                assert works or before == 0
            if name.startswith("end") and before:
                works = name == "end_well"
        for place in under_way:
            rig.fail(place)
        rig.pass_(60)
        await rig.call()

    asyncio.run(run())
