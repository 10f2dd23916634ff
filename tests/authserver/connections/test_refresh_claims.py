"""Promise 2 and 3 where time, outages and an upstream's promises come in."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from authserver.connections.freshness import renewal_window
from authserver.connections.timeouts import RefreshTimeouts
from authserver.connections.upstream_health import Place
from authserver.oauth.errors import InvalidGrant
from authserver.storage.contract import StorageUnavailable
from authserver.storage.records import Connection, ConnectionKey, UpstreamTokens
from chassis.spiffe_id import Workload
from tests.fakes.clock import ManualClock
from tests.fakes.upstream import Held, hanging_up, saying
from tests.support.callers import waits
from tests.support.deployment import TASKS
from tests.support.refreshes import (
    EXPIRED,
    MUST_SIGN_IN,
    STALE,
    UNAVAILABLE,
    Rig,
    left_behind,
    rig,
)
from tests.support.workloads import TASKS_SERVER, verdict


async def settled(rigged: Rig) -> None:
    await rigged.world.server.drain()


# Renewing ahead.


async def test_a_token_is_renewed_ahead_of_its_end_while_nobody_waits(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        moment = int(100 - renewal_window(await rigged.connection()))
        assert 70 <= moment < 80
        rigged.world.clock.advance(moment)
        assert await rigged.token() == "access-1"
        await settled(rigged)
        assert rigged.upstream.presented == []
        rigged.world.clock.advance(1)
        assert (await rigged.exchange()).status == 200
        await settled(rigged)
        assert await rigged.token() == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


def test_tokens_of_one_moment_are_not_all_renewed_in_one_moment() -> None:
    tokens = UpstreamTokens("a", "r", None, obtained_at=0, expires_at=1000)
    ahead = {
        renewal_window(
            Connection(ConnectionKey(f"u{n}", Workload("ns", "s"), "acme"), 1, "i", "s", tokens)
        )
        for n in range(50)
    }
    assert len(ahead) == 50
    assert 60 <= min(ahead) < 70
    assert 80 < max(ahead) <= 90


async def test_nobody_sets_out_to_renew_what_cannot_be_renewed(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        claims, found = rigged.world.server._stores.claims, await rigged.connection()
        assert await claims.claim(found, "c", 0)
        assert await claims.swap(found, "c", replace(found.tokens, refresh_token=None))
        await nothing_is_renewed(rigged)


async def test_nobody_claims_a_connection_that_is_dead(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        await rigged.sql("UPDATE connections SET dead = 1")
        await nothing_is_renewed(rigged)


async def nothing_is_renewed(rigged: Rig) -> None:
    claims = overheard(rigged, "claim")
    ahead = renewal_window(await rigged.connection())
    rigged.world.clock.advance(100 - (20 + ahead) / 2)  # when another would be renewed ahead
    assert await rigged.token() == "access-1"
    await settled(rigged)
    rigged.world.clock.advance(EXPIRED)
    assert verdict(await rigged.exchange()) == MUST_SIGN_IN
    await settled(rigged)
    assert not claims.calls


# What upstreams promise, and their troubles.


async def test_a_grace_for_reuse_lets_a_refresh_that_broke_off_be_tried_again(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as rigged:
        _promise_grace(rigged, 300)
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(hanging_up)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert await rigged.token() == "access-3"
        assert rigged.upstream.presented == ["refresh-1", "refresh-1"]


async def test_where_more_than_the_grant_is_at_stake_an_unknown_fate_is_the_end(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, revocationEndsGrant=True) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(hanging_up)
        for _ in range(2):
            assert verdict(await rigged.exchange()) == MUST_SIGN_IN
        assert rigged.upstream.presented == ["refresh-1"]


async def test_the_operator_may_allow_to_present_again_all_the_same(tmp_path: Path) -> None:
    async with rig(tmp_path, revocationEndsGrant=True, repeatUncertainRefresh=True) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(hanging_up)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert await rigged.token() == "access-3"


async def test_where_more_is_at_stake_a_dead_process_ends_the_connection(tmp_path: Path) -> None:
    async with rig(tmp_path, revocationEndsGrant=True) as rigged:
        rigged.world.clock.advance(EXPIRED)
        await left_behind(rigged, 61)
        assert verdict(await rigged.exchange()) == MUST_SIGN_IN
        assert rigged.upstream.presented == []


async def test_a_token_of_unknown_fate_rests_while_the_access_token_serves(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(STALE)
        rigged.upstream.then(hanging_up)
        for _ in range(3):
            assert await rigged.token() == "access-1"
            rigged.world.clock.advance(3)
        await settled(rigged)
        assert rigged.upstream.presented == ["refresh-1"]
        rigged.world.clock.advance(EXPIRED - STALE - 9)
        assert await rigged.token() == "access-3"


@pytest.mark.parametrize(("others", "expected"), [(True, MUST_SIGN_IN), (False, UNAVAILABLE)])
async def test_a_fate_unknown_for_ten_minutes_while_others_succeed_asks_the_user(
    tmp_path: Path, others: bool, expected: Any
) -> None:
    """The token is kept, and a later yes brings the connection back."""
    async with rig(tmp_path) as rigged:
        tasks = (await rigged.world.signed_in(resource=TASKS)).access_token
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(hanging_up)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        rigged.world.clock.advance(599)
        if others:
            assert (await rigged.world.exchange(TASKS_SERVER, tasks)).status == 200
        rigged.upstream.then(hanging_up)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        rigged.world.clock.advance(70)
        rigged.upstream.then(hanging_up)
        assert verdict(await rigged.exchange()) == expected
        await settled(rigged)
        rigged.world.clock.advance(120)
        await rigged.exchange()
        await settled(rigged)
        assert (await rigged.exchange()).status == 200


async def test_a_fate_unknown_for_a_day_asks_the_user(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(hanging_up, hanging_up)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        await rigged.sql(
            "UPDATE connections SET first_claimed_at = first_claimed_at - ?", 24 * 3600
        )
        assert verdict(await rigged.exchange()) == MUST_SIGN_IN


async def test_refusals_in_other_words_ask_the_user_after_minutes(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        for expected in (UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, MUST_SIGN_IN):
            rigged.upstream.then(saying(400, {"error": "token_is_stale"}))
            assert verdict(await rigged.exchange()) == expected
            await settled(rigged)
            rigged.world.clock.advance(150)
        await rigged.exchange()  # tried all the same
        await settled(rigged)
        assert await rigged.token() == "access-6"


async def test_refusals_of_one_moment_leave_an_unknown_fate_its_ten_minutes(
    tmp_path: Path,
) -> None:
    """They may be one fault of the upstream; what came after them is unknown."""
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        for answer in (*[saying(400, {"error": "token_is_stale"})] * 3, hanging_up):
            rigged.upstream.then(answer)
            assert verdict(await rigged.exchange()) == UNAVAILABLE
            await settled(rigged)
            rigged.world.clock.advance(20)
        assert len(rigged.upstream.presented) == 4
        rigged.world.clock.advance(400)
        rigged.upstream.then(hanging_up)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        await settled(rigged)
        rigged.world.clock.advance(60)
        assert await rigged.token() == "access-7"


async def test_an_upstream_that_asks_for_a_pause_gets_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(saying(503, {}, **{"Retry-After": "120"}))
        first = await rigged.exchange()
        assert (first.status, first.headers["Retry-After"]) == (503, "120")
        for _ in range(3):
            rigged.world.clock.advance(39)
            assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert len(rigged.upstream.presented) == 1
        rigged.world.clock.advance(4)
        assert await rigged.token() == "access-3"


async def test_a_slow_upstream_gets_one_call_at_a_time_and_no_renewals_ahead(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, timeouts=RefreshTimeouts(slow_call=-1)) as rigged:
        tasks = (await rigged.world.signed_in(resource=TASKS)).access_token
        rigged.world.clock.advance(EXPIRED)
        held = Held()
        rigged.upstream.then(held)
        call = asyncio.create_task(rigged.exchange())
        await rigged.upstream.until_presented(1)
        assert verdict(await rigged.world.exchange(TASKS_SERVER, tasks)) == UNAVAILABLE
        assert len(rigged.upstream.presented) == 1
        held.let_go()
        assert (await call).status == 200
        assert (await rigged.world.exchange(TASKS_SERVER, tasks)).status == 200


async def test_of_two_who_ask_an_upstream_in_trouble_at_one_moment_one_goes(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as rigged:
        tasks = (await rigged.world.signed_in(resource=TASKS)).access_token
        rigged.world.clock.advance(EXPIRED)
        for _ in range(3):
            rigged.upstream.then(saying(503, {}))
            assert verdict(await rigged.exchange()) == UNAVAILABLE
            rigged.world.clock.advance(60)
        held = Held()
        rigged.upstream.then(held)
        both = {
            asyncio.create_task(rigged.exchange()),
            asyncio.create_task(rigged.world.exchange(TASKS_SERVER, tasks)),
        }
        done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert [verdict(task.result()) for task in done] == [UNAVAILABLE]
        await rigged.upstream.until_presented(4)
        held.let_go()
        assert [(await task).status for task in waiting] == [200]
        assert len(rigged.upstream.presented) == 4


@pytest.mark.parametrize("works", [True, False])
async def test_a_fresh_process_sends_one_call_and_the_others_wait_for_its_outcome(
    tmp_path: Path, works: bool
) -> None:
    async with rig(tmp_path, timeouts=RefreshTimeouts(slow_call=60)) as rigged:
        tasks = (await rigged.world.signed_in(resource=TASKS)).access_token
        rigged.world.clock.advance(EXPIRED)
        held = Held(None if works else saying(503, {}, **{"Retry-After": "120"}))
        rigged.upstream.then(held)
        first = asyncio.create_task(rigged.exchange())
        await rigged.upstream.until_presented(1)
        asked = when_asked_for_a_place(rigged)
        second = asyncio.create_task(rigged.world.exchange(TASKS_SERVER, tasks))
        await asked.wait()
        held.let_go()
        assert (await first).status == (200 if works else 503)
        assert (await second).status == (200 if works else 503)
        assert len(rigged.upstream.presented) == (2 if works else 1)


@pytest.mark.parametrize("ceases", ["slow", "pausing"])
async def test_a_token_is_not_sent_if_its_upstream_ceased_to_work_while_its_claim_was_written(
    tmp_path: Path, ceases: str
) -> None:
    """It is not at risk then: it goes as soon as the upstream works."""
    async with rig(tmp_path) as rigged:
        tasks = (await rigged.world.signed_in(resource=TASKS)).access_token
        health = rigged.world.server._refresher._claimed_refresh.health
        health._monotonic = seconds = ManualClock(0.0)
        rigged.world.clock.advance(EXPIRED)
        assert (await rigged.exchange()).status == 200  # it works
        rigged.world.clock.advance(EXPIRED)
        held = Held(None if ceases == "slow" else saying(429, {}, **{"Retry-After": "60"}))
        rigged.upstream.then(held)
        first = asyncio.create_task(rigged.exchange())
        await rigged.upstream.until_presented(2)
        looks = Stopped(rigged.world.server._stores.claims.claimed_at)
        rigged.world.server._stores.claims.claimed_at = looks  # type: ignore[method-assign, assignment]
        second = asyncio.create_task(rigged.world.exchange(TASKS_SERVER, tasks))
        await looks.asked.wait()
        if ceases == "slow":
            seconds.advance(2.1)
        else:
            held.let_go()
            assert verdict(await first) == UNAVAILABLE
        looks.let_go.set()
        assert verdict(await second) == UNAVAILABLE
        assert len(rigged.upstream.presented) == 2
        held.let_go()
        await first
        rigged.world.clock.advance(61 if ceases == "pausing" else 0)
        assert (await rigged.world.exchange(TASKS_SERVER, tasks)).status == 200


class Stopped:
    """A verb of storage that waits until it is let go."""

    def __init__(self, verb: Callable[..., Awaitable[Any]]) -> None:
        self._verb = verb
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()

    async def __call__(self, *arguments: object) -> Any:
        self.asked.set()
        await self.let_go.wait()
        return await self._verb(*arguments)


@pytest.mark.parametrize(
    "limits",
    [
        {"timeouts": RefreshTimeouts(flight=0.1), "answer_within": 3600.0},
        {"answer_within": 0.1},
    ],
    ids=["flight", "answer"],
)
async def test_a_call_that_is_broken_off_is_over_before_the_next_one_goes(
    tmp_path: Path, limits: Any
) -> None:
    async with rig(tmp_path, **limits) as rigged:
        rigged.world.clock.advance(EXPIRED)
        unanswered = Unanswered()
        for number in range(1, 4):
            rigged.upstream.then(unanswered)
            assert verdict(await rigged.exchange()) == UNAVAILABLE
            assert len(rigged.upstream.presented) == number
            rigged.world.clock.advance(60)
        assert unanswered.waiting == [1, 1, 1]


class Unanswered:
    """No answer to any call, and how many callers were waiting as each call came."""

    def __init__(self) -> None:
        self._calls: list[web.Request] = []
        self.waiting: list[int] = []

    async def __call__(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        self._calls.append(request)
        self.waiting.append(sum(map(waits, self._calls)))
        await asyncio.Event().wait()
        raise AssertionError


def when_asked_for_a_place(rigged: Rig) -> asyncio.Event:
    """Set when the next refresh asks whether it may go."""
    health = rigged.world.server._refresher._claimed_refresh.health
    place, asked = health.place, asyncio.Event()

    async def heard(name: str, *, fate_unknown: bool) -> Place:
        asked.set()
        return await place(name, fate_unknown=fate_unknown)

    health.place = heard  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("lost", [True, False], ids=["taken over", "nearly over"])
async def test_a_claim_is_looked_at_again_before_its_token_is_sent(
    tmp_path: Path, lost: bool
) -> None:
    """As after a pause of the process: another may hold the claim by then."""
    async with rig(tmp_path) as rigged:
        claims = overheard(rigged, "claimed_at")
        claims.answers = None if lost else int(rigged.world.clock()) + EXPIRED - 46
        rigged.world.clock.advance(EXPIRED)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert rigged.upstream.presented == []
        assert claims.calls == 1


async def test_an_upstream_in_trouble_is_left_alone_for_longer_and_longer(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(*[saying(503, {})] * 50)
        for _ in range(20):
            assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert len(rigged.upstream.presented) == 2
        for _ in range(60):
            rigged.world.clock.advance(1)
            assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert 5 <= len(rigged.upstream.presented) <= 12


# Storage in trouble.


class Overheard:
    """A verb of storage that tells how often it was called, and whose answers may get lost."""

    def __init__(self, verb: Callable[..., Awaitable[Any]]) -> None:
        self._verb, self._called = verb, asyncio.Condition()
        self.calls, self.loses_answers = 0, False
        self.answers: Any = ...

    async def __call__(self, *arguments: object, **named: object) -> Any:
        try:
            answer = await self._verb(*arguments, **named)
        finally:
            async with self._called:
                self.calls += 1
                self._called.notify_all()
        if self.loses_answers:
            raise StorageUnavailable("the connection broke")
        return answer if self.answers is ... else self.answers

    async def until_called(self, times: int) -> None:
        async with self._called:
            await self._called.wait_for(lambda: self.calls >= times)


def overheard(rigged: Rig, verb: str, rows: str = "claims") -> Overheard:
    verbs = getattr(rigged.world.server._stores, rows)
    heard = Overheard(getattr(verbs, verb))
    setattr(verbs, verb, heard)
    return heard


async def test_a_claim_whose_answer_was_lost_costs_no_connection(tmp_path: Path) -> None:
    """Nobody has presented anything under it, and only this process knows."""
    async with rig(tmp_path) as rigged:
        claims = overheard(rigged, "claim")
        claims.loses_answers = True
        rigged.world.clock.advance(EXPIRED)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        claims.loses_answers = False
        await settled(rigged)
        assert await rigged.sql("SELECT refresh_claim FROM connections") == [(None,)]
        assert await rigged.token() == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


async def test_while_it_is_in_doubt_whether_a_claim_was_taken_no_other_is(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        claims, returns = overheard(rigged, "claim"), overheard(rigged, "release_claim")
        claims.loses_answers = returns.loses_answers = True
        rigged.world.clock.advance(EXPIRED)
        for _ in range(3):
            assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert claims.calls == 1
        claims.loses_answers = returns.loses_answers = False
        await settled(rigged)
        assert await rigged.token() == "access-2"


async def test_a_result_outlasts_an_outage_of_the_database(tmp_path: Path) -> None:
    timeouts = RefreshTimeouts(store_pauses=(), max_store_pause=0)
    async with rig(tmp_path, timeouts=timeouts) as rigged:
        swaps = overheard(rigged, "swap")
        rigged.world.clock.advance(EXPIRED)
        async with rigged.refusing("sealed_tokens"):
            call = asyncio.create_task(rigged.exchange())
            await swaps.until_called(20)
        assert (await call).status == 200
        assert rigged.upstream.presented == ["refresh-1"]


# Whoever waits for another's claim.


async def test_what_another_gave_up_is_waited_for_no_longer(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        found = await rigged.connection()
        await rigged.sql("UPDATE connections SET dead = 1")  # after this caller has read it
        rigged.world.clock.advance(EXPIRED)
        with pytest.raises(InvalidGrant):
            await rigged.world.server._refresher.usable(found, min_ttl=0, rejected=False)


async def test_a_claim_given_back_between_two_looks_costs_a_pause_as_if_it_had_been_ours(
    tmp_path: Path,
) -> None:
    """The other holder tried a moment ago: its upstream is not asked again at once."""
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        looks = overheard(rigged, "get", "connections")
        for _ in range(2):
            await left_behind(rigged, 0)
            call, seen = asyncio.create_task(rigged.exchange()), looks.calls
            await looks.until_called(seen + 2)  # each finds the claim
            await rigged.sql(
                "UPDATE connections SET refresh_claim = NULL, refresh_claimed_at = NULL,"
                " first_claimed_at = NULL"
            )
            assert verdict(await call) == UNAVAILABLE
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert rigged.upstream.presented == []
        rigged.world.clock.advance(1)
        assert await rigged.token() == "access-2"


@pytest.mark.parametrize("passed", [STALE, EXPIRED])
async def test_whoever_waited_long_enough_gets_what_there_is(tmp_path: Path, passed: int) -> None:
    async with rig(tmp_path, timeouts=RefreshTimeouts(wait=0)) as rigged:
        held = Held()
        rigged.upstream.then(held)
        rigged.world.clock.advance(passed)
        answer = await rigged.exchange()
        if passed == STALE:
            assert answer.json()["access_token"] == "access-1"
        else:
            assert verdict(answer) == UNAVAILABLE
        held.let_go()
        await settled(rigged)
        assert await rigged.token() == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


async def test_a_flight_that_takes_too_long_is_broken_off(tmp_path: Path) -> None:
    timeouts = RefreshTimeouts(flight=0.1)
    async with rig(tmp_path, answer_within=3600, timeouts=timeouts) as rigged:
        held = Held()
        rigged.upstream.then(held)
        rigged.world.clock.advance(EXPIRED)
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        held.let_go()
        assert await rigged.token() == "access-3"


def _promise_grace(rigged: Rig, seconds: int) -> None:
    for upstream in rigged.world.server._live.upstreams.values():
        upstream.reuse_grace_seconds = seconds  # type: ignore[misc]


async def test_a_connection_made_anew_has_no_failures_behind_it(tmp_path: Path) -> None:
    """Its generations begin again at 1, and with them its name in the memory of failures."""
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        for _ in range(3):
            rigged.upstream.then(saying(503, {}))
            assert verdict(await rigged.exchange()) == UNAVAILABLE
            rigged.world.clock.advance(60)
        await rigged.token()
        await rigged.revoke(rigged.user)
        await settled(rigged)
        rigged.user = await rigged.world.signed_in()
        rigged.world.clock.advance(EXPIRED)
        tried = len(rigged.upstream.presented)
        for _ in range(2):
            rigged.upstream.then(saying(503, {}))
            assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert len(rigged.upstream.presented) == tried + 2
