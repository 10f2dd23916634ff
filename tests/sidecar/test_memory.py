"""What the sidecar remembers, for whom, and for how long."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.broker import MAX_LEASES, Broker, hash_of
from sidecar.cached_token import CachedToken, Token
from sidecar.errors import TEMPORARILY_UNAVAILABLE, ApiError
from sidecar.metrics import Metrics
from sidecar.timeouts import Timeouts
from sidecar.token_request import TokenRequest
from sidecar.ttl_cache import TtlCache
from tests.fakes.authserver import Received, held_until, refuse, release
from tests.fakes.clock import ManualClock
from tests.sidecar.harness import JWT, OTHER_JWT, Authorities, Harness, harness


def cache(r: Harness, result: str) -> float:
    return r.metric("tokenward_sidecar_cache_total", result=result)


def token(name: str) -> Callable[[], web.StreamResponse]:
    return lambda: release(access_token=name)


async def test_the_second_call_is_answered_from_memory(r: Harness) -> None:
    assert [(await r.ask()).status for _ in range(3)] == [200, 200, 200]
    assert len(r.authserver.received) == 1
    assert (cache(r, "miss"), cache(r, "hit")) == (1, 2)
    assert r.metric("tokenward_sidecar_cache_entries") == 1


async def test_another_users_jwt_never_meets_this_users_token(r: Harness) -> None:
    r.authserver.then(token("alices"), token("bobs"))
    assert (await r.ask(jwt=JWT)).json["access_token"] == "alices"
    assert (await r.ask(jwt=OTHER_JWT)).json["access_token"] == "bobs"
    assert (await r.ask(jwt=JWT)).json["access_token"] == "alices"


async def test_the_same_claims_under_another_signature_meet_nothing(r: Harness) -> None:
    await r.ask(jwt=JWT)
    r.authserver.then(lambda: refuse(400, "invalid_request"))
    forged = JWT.rpartition(".")[0] + ".Zm9yZ2Vk"
    assert (await r.ask(jwt=forged)).status == 401
    assert [request.form["subject_token"] for request in r.authserver.received] == [JWT, forged]


async def test_each_upstream_has_its_own_entry(r: Harness) -> None:
    r.authserver.then(token("a"), lambda: release(access_token="b", upstream="gitlab"), token("c"))
    requested_upstream: list[dict[str, str]] = [{"upstream": "github"}, {"upstream": "gitlab"}, {}]
    for _ in range(2):
        tokens = [(await r.ask(body)).json["access_token"] for body in requested_upstream]
        assert tokens == ["a", "b", "c"]
    assert len(r.authserver.received) == 3


@pytest.mark.parametrize(("cache_ttl", "life"), [(10, 10), (60, 60), (3600, 60)])
async def test_an_entry_lives_for_cache_ttl_and_never_past_60_seconds(
    r: Harness, cache_ttl: int, life: int
) -> None:
    r.authserver.then(lambda: release(cache_ttl=cache_ttl))
    await r.ask()
    r.clock.advance(life - 0.001)
    await r.ask()
    assert len(r.authserver.received) == 1
    r.clock.advance(0.001)
    await r.ask()
    assert len(r.authserver.received) == 2


async def test_the_operator_may_lower_the_cap(tmp_path: Path, authorities: Authorities) -> None:
    async with harness(tmp_path, authorities, CACHE_TTL_MAX="5") as r:
        await r.ask()
        r.clock.advance(5)
        await r.ask()
        assert len(r.authserver.received) == 2


async def test_a_cache_ttl_of_0_is_not_remembered(r: Harness) -> None:
    r.authserver.then(lambda: release(cache_ttl=0))
    assert (await r.ask()).status == 200
    assert r.metric("tokenward_sidecar_cache_entries") == 0


async def test_life_is_counted_from_before_the_exchange(r: Harness) -> None:
    async def slow(_: Received) -> web.StreamResponse:
        r.clock.advance(30)
        return release(cache_ttl=60, expires_in=100)

    r.authserver.then_slowly(slow)
    assert (await r.ask()).json["expires_in"] == 70
    r.clock.advance(29)
    assert (await r.ask()).json["expires_in"] == 41
    r.clock.advance(1)
    await r.ask()
    assert len(r.authserver.received) == 2


async def test_an_answer_that_took_longer_than_it_may_live_is_not_remembered(r: Harness) -> None:
    async def slow(_: Received) -> web.StreamResponse:
        r.clock.advance(30)
        return release(cache_ttl=20, expires_in=25)

    r.authserver.then_slowly(slow)
    assert (await r.ask()).json["expires_in"] == 1
    assert r.metric("tokenward_sidecar_cache_entries") == 0


async def test_expires_in_counts_down_and_the_token_is_not_served_past_it(r: Harness) -> None:
    r.authserver.then(lambda: release(expires_in=3, cache_ttl=60))
    seen = []
    for _ in range(3):
        seen.append((await r.ask()).json["expires_in"])
        r.clock.advance(1)
    assert seen == [3, 2, 1]
    assert (await r.ask()).json["expires_in"] == 3600
    assert len(r.authserver.received) == 2


async def test_the_wall_clock_moves_nothing(r: Harness) -> None:
    await r.ask()
    for day in (86_400, -2 * 86_400):
        r.wall.advance(day)
        assert (await r.ask()).json["expires_in"] == 3600
    assert len(r.authserver.received) == 1


async def test_a_token_that_will_not_last_min_ttl_is_exchanged_anew(r: Harness) -> None:
    r.authserver.then(lambda: release(expires_in=100), lambda: release(expires_in=700))
    await r.ask()
    assert (await r.ask({"min_ttl": 100})).json["expires_in"] == 100
    assert len(r.authserver.received) == 1
    assert (await r.ask({"min_ttl": 101})).json["expires_in"] == 700
    assert (await r.ask({"min_ttl": 600})).json["expires_in"] == 700
    assert [request.form.get("min_ttl") for request in r.authserver.received] == [None, "101"]


async def test_a_token_without_an_expiry_satisfies_every_min_ttl(r: Harness) -> None:
    r.authserver.then(lambda: release(expires_in=None))
    await r.ask()
    await r.ask({"min_ttl": 600})
    assert len(r.authserver.received) == 1


async def test_a_rejected_token_is_dropped_and_reported(r: Harness) -> None:
    r.authserver.then(token("old"), token("new"))
    await r.ask()
    assert (await r.ask({"rejected_token": "old"})).json["access_token"] == "new"
    assert (await r.ask()).json["access_token"] == "new"
    assert len(r.authserver.received) == 2


async def test_a_rejected_token_does_not_come_back_when_the_authserver_is_down(r: Harness) -> None:
    await r.ask()
    r.authserver.then(lambda: refuse(500, "server_error"), lambda: refuse(500, "server_error"))
    assert (await r.ask({"rejected_token": "upstream-token"})).status == 503
    assert (await r.ask()).status == 503


async def test_a_token_nobody_rejected_stays_when_the_authserver_is_down(r: Harness) -> None:
    await r.ask()
    r.authserver.then(lambda: refuse(500, "server_error"))
    assert (await r.ask({"rejected_token": "an-older-token"})).status == 503
    assert (await r.ask()).status == 200
    assert len(r.authserver.received) == 2


@pytest.mark.parametrize("error", ["invalid_request", "invalid_grant", "invalid_target"])
async def test_a_denial_drops_the_entry(r: Harness, error: str) -> None:
    await r.ask()
    r.authserver.then(lambda: release(expires_in=100), lambda: refuse(400, error))
    r.clock.advance(60)
    await r.ask()
    denied = await r.ask({"min_ttl": 600})
    assert denied.status in (401, 404)
    assert (await r.ask()).status == denied.status
    assert r.metric("tokenward_sidecar_cache_entries") == 0


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_an_outage_keeps_the_entry_until_its_time(r: Harness, status: int) -> None:
    r.authserver.then(
        lambda: release(expires_in=100), lambda: refuse(status, "any", retry_after=30)
    )
    await r.ask()
    assert (await r.ask({"min_ttl": 600})).status in (429, 503)
    assert (await r.ask()).status == 200
    assert len(r.authserver.received) == 2


@pytest.mark.parametrize("error", ["invalid_request", "invalid_grant", "invalid_target"])
async def test_a_denial_is_remembered_for_5_seconds_for_this_question_alone(
    r: Harness, error: str
) -> None:
    r.authserver.then(lambda: refuse(400, error))
    first = await r.ask()
    r.clock.advance(4.9)
    again = await r.ask()
    assert (again.status, again.json["error"]) == (first.status, first.json["error"])
    assert again.json["request_id"] != first.json["request_id"]
    assert (len(r.authserver.received), cache(r, "negative")) == (1, 1)
    assert (await r.ask(jwt=OTHER_JWT)).status == 200
    assert (await r.ask({"upstream": "github"})).status == 200
    r.clock.advance(0.1)
    assert (await r.ask()).status == 200


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_trouble_is_never_remembered(r: Harness, status: int) -> None:
    r.authserver.then(lambda: refuse(status, "any", retry_after=30))
    assert (await r.ask()).status in (429, 503)
    assert (await r.ask()).status == 200


async def test_500_calls_at_once_are_one_exchange(r: Harness) -> None:
    released = asyncio.Event()
    r.authserver.always(held_until(released))
    calls = [asyncio.create_task(r.ask()) for _ in range(500)]
    await r.until(lambda: cache(r, "coalesced") == 499)
    released.set()
    replies = await asyncio.gather(*calls)
    assert {(reply.status, reply.json["access_token"]) for reply in replies} == {
        (200, "upstream-token")
    }
    assert (len(r.authserver.received), cache(r, "miss")) == (1, 1)


async def test_different_questions_do_not_wait_for_each_other(r: Harness) -> None:
    released = asyncio.Event()
    r.authserver.then_slowly(held_until(released))
    waiting = asyncio.create_task(r.ask())
    await r.authserver.until_received(1)
    assert (await r.ask(jwt=OTHER_JWT)).status == 200
    assert (await r.ask({"min_ttl": 300})).status == 200
    released.set()
    assert (await waiting).status == 200


async def test_whoever_gives_up_takes_nothing_from_the_others(r: Harness) -> None:
    released, broker = asyncio.Event(), r.sidecar.broker
    r.authserver.always(held_until(released))
    leader, follower = (asyncio.create_task(broker.obtain(JWT, TokenRequest())) for _ in range(2))
    await r.authserver.until_received(1)
    leader.cancel()
    released.set()
    assert isinstance(await follower, CachedToken)
    assert leader.cancelled()
    assert len(r.authserver.received) == 1


async def test_what_nobody_waits_for_any_more_is_remembered_all_the_same(r: Harness) -> None:
    released, broker = asyncio.Event(), r.sidecar.broker
    r.authserver.always(held_until(released))
    leader = asyncio.create_task(broker.obtain(JWT, TokenRequest()))
    await r.authserver.until_received(1)
    leader.cancel()
    released.set()
    await r.until(lambda: r.metric("tokenward_sidecar_cache_entries") == 1)
    assert (await r.ask()).status == 200
    assert len(r.authserver.received) == 1


async def test_a_caller_waits_only_so_long(tmp_path: Path, authorities: Authorities) -> None:
    async with harness(tmp_path, authorities, timeouts=Timeouts(wait=0.02)) as r:
        released = asyncio.Event()
        r.authserver.always(held_until(released))
        assert (await r.ask()).status == 503
        released.set()
        await r.until(lambda: r.metric("tokenward_sidecar_cache_entries") == 1)
        assert (await r.ask()).status == 200
        assert len(r.authserver.received) == 1


async def test_an_answer_that_was_overtaken_replaces_nothing(r: Harness) -> None:
    released = asyncio.Event()
    r.authserver.then_slowly(held_until(released, token("old")))
    early = asyncio.create_task(r.ask())
    await r.authserver.until_received(1)
    r.clock.advance(1)
    r.authserver.then(token("new"))
    assert (await r.ask({"rejected_token": "old"})).json["access_token"] == "new"
    released.set()
    assert (await early).json["access_token"] == "old"
    assert (await r.ask()).json["access_token"] == "new"


async def test_a_denial_that_was_overtaken_drops_nothing(r: Harness) -> None:
    released = asyncio.Event()
    r.authserver.then_slowly(held_until(released, lambda: refuse(400, "invalid_grant")))
    early = asyncio.create_task(r.ask({"min_ttl": 1}))
    await r.authserver.until_received(1)
    r.clock.advance(1)
    assert (await r.ask()).status == 200
    released.set()
    assert (await early).status == 401
    assert (await r.ask()).status == 200


def a_broker(clock: ManualClock, outcome: Callable[[], Token | ApiError]) -> Broker:
    async def exchange(_: str, __: TokenRequest) -> Token | ApiError:
        return outcome()

    metrics = Metrics()
    return Broker(exchange, ttl_max=60, now=clock, metrics=metrics, wait_seconds=1)


async def test_memory_is_bounded_however_many_jwts_come_by() -> None:
    clock = ManualClock()
    broker = a_broker(clock, lambda: Token("t", "github", 60))
    for number in range(MAX_LEASES + 500):
        await broker.obtain(f"{number}.b.c", TokenRequest())
    assert broker.entries == MAX_LEASES
    assert broker.cached(hash_of("0.b.c"), TokenRequest()) is None
    assert broker.cached(hash_of(f"{MAX_LEASES + 499}.b.c"), TokenRequest()) is not None


async def test_exchanges_under_way_are_bounded_too() -> None:
    never = asyncio.Event()

    async def exchange(_: str, __: TokenRequest) -> Token | ApiError:
        await never.wait()
        raise AssertionError

    metrics = Metrics()
    broker = Broker(
        exchange, ttl_max=60, now=ManualClock(), metrics=metrics, wait_seconds=9, max_flights=2
    )
    waiting = [asyncio.create_task(broker.obtain(f"{n}.b.c", TokenRequest())) for n in range(2)]
    await asyncio.sleep(0)
    refused = await broker.obtain("2.b.c", TokenRequest())
    assert isinstance(refused, ApiError)
    assert (refused.status, refused.reason) == (503, "too_many_exchanges")
    broker.cancel_all()
    assert await asyncio.gather(*waiting) == [TEMPORARILY_UNAVAILABLE] * 2


async def test_entries_past_their_time_are_swept_away(r: Harness) -> None:
    await r.ask()
    r.clock.advance(60)
    await r.sidecar.tick()
    assert r.metric("tokenward_sidecar_cache_entries") == 0


def test_the_least_recently_used_entry_goes_first() -> None:
    memory = TtlCache[str](max_entries=2, max_weight=100)
    memory.put("a", "A", until=10)
    memory.put("b", "B", until=10)
    assert memory.get("a", now=0) == "A"
    memory.put("c", "C", until=10)
    assert [memory.get(key, now=0) for key in "abc"] == ["A", None, "C"]


def test_weight_bounds_memory_too_and_is_given_back() -> None:
    memory = TtlCache[str](max_entries=100, max_weight=10)
    memory.put("a", "A", until=10, weight=6)
    memory.put("b", "B", until=10, weight=6)
    assert len(memory) == 1
    memory.put("b", "B", until=10, weight=1)
    memory.put("c", "C", until=10, weight=9)
    assert len(memory) == 2
    memory.drop("c")
    memory.put("d", "D", until=10, weight=9)
    assert memory.get("b", now=9.9) == "B"
    assert memory.get("b", now=10) is None
    assert len(memory) == 1
