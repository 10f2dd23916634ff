"""What a sidecar does with the revocation feed: drops, asks again, and copes without it."""

import asyncio
from functools import partial
from operator import truediv
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.app import build
from sidecar.ended_handles import REMEMBERED_SECONDS
from sidecar.settings import read_settings
from sidecar.timeouts import Timeouts
from tests.fakes.authserver import Received, held_until, refuse, release
from tests.sidecar.harness import (
    JWT,
    OTHER_JWT,
    Authorities,
    Harness,
    environment,
    fake_authserver,
    harness,
)

ALICE = {"session": "alices-session", "connection": "alices-connection"}
BOB = {"session": "bobs-session", "connection": "bobs-connection"}


class Streams:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[frozenset[str] | str] = []

    def ended(self, handles: frozenset[str]) -> None:
        self.heard.append(handles)

    def look_again(self) -> None:
        self.heard.append("look again")


def answered(*handles: str, cursor: str = "c1", **more: Any) -> web.Response:
    """An answer of the feed; each handle is an ending of its own id, unless `id=handle` says so."""
    ended = []
    for number, handle in enumerate(handles):
        identifier, _, named = handle.rpartition("=")
        ended.append({"id": identifier or f"id-{cursor}-{number}", "handle": named})
    return web.json_response({"ended": ended, "cursor": cursor, **more})


async def hold(r: Harness, jwt: str, identity: dict[str, str]) -> None:
    r.authserver.then(lambda: release(access_token=f"token-{identity['session']}", **identity))
    assert (await r.ask(jwt=jwt)).status == 200


async def poll(r: Harness, answer: web.Response) -> float:
    r.authserver.then(lambda: answer)
    return await r.sidecar.revocations.poll()


@pytest.mark.parametrize("handle", ALICE.values())
async def test_what_ended_is_dropped_and_nothing_else(r: Harness, handle: str) -> None:
    await hold(r, JWT, ALICE)
    await hold(r, OTHER_JWT, BOB)
    assert await poll(r, answered(handle)) == 0
    assert r.metric("tokenward_sidecar_cache_entries") == 1
    assert r.metric("tokenward_sidecar_revocation_drops_total") == 1
    r.authserver.then(lambda: refuse(400, "invalid_grant"))
    assert (await r.ask(jwt=JWT)).status == 401
    asked = len(r.authserver.received)
    assert (await r.ask(jwt=OTHER_JWT)).json["access_token"] == "token-bobs-session"
    assert len(r.authserver.received) == asked


async def test_a_poll_goes_on_from_the_last_answer(r: Harness) -> None:
    for cursor in ("c1", "c2"):
        await poll(r, answered(cursor=cursor))
    await poll(r, refuse(503, "temporarily_unavailable"))
    await poll(r, answered(cursor="c3"))
    forms = [dict(asked.form) for asked in r.authserver.received]
    assert forms == [{}, {"cursor": "c1"}, {"cursor": "c2"}, {"cursor": "c2"}]
    assert {asked.path for asked in r.authserver.received} == {"/internal/revocations"}
    assert {asked.method for asked in r.authserver.received} == {"POST"}


async def test_an_answer_asked_for_before_the_ending_is_neither_served_nor_kept(
    r: Harness,
) -> None:
    let_go = asyncio.Event()
    r.authserver.then_slowly(held_until(let_go, lambda: release(access_token="stale", **ALICE)))
    asking = asyncio.create_task(r.ask())
    await r.authserver.until_received(1)
    await poll(r, answered(ALICE["session"]))
    r.authserver.then(lambda: refuse(400, "invalid_grant"))
    let_go.set()
    assert (await asking).status == 401
    assert r.metric("tokenward_sidecar_cache_entries") == 0


async def test_a_token_asked_for_after_the_ending_is_kept(r: Harness) -> None:
    """The user connected anew: the connection has the handle that it had."""
    await poll(r, answered(ALICE["connection"]))
    r.clock.advance(1)
    await hold(r, JWT, ALICE)
    assert r.metric("tokenward_sidecar_cache_entries") == 1
    await poll(r, answered(f"id-c1-0={ALICE['connection']}", cursor="c2"))
    assert r.metric("tokenward_sidecar_cache_entries") == 1  # a repetition
    await poll(r, answered(f"another={ALICE['connection']}", cursor="c3"))
    assert r.metric("tokenward_sidecar_cache_entries") == 0


async def test_an_authserver_that_goes_on_sending_what_ended_gets_503(r: Harness) -> None:
    """Its answers lag behind its own feed, so we say nothing for sure."""

    async def stale(_: Received) -> web.StreamResponse:
        r.sidecar.broker.ended.announce([(f"id-{len(r.authserver.received)}", ALICE["session"])])
        return release(**ALICE)

    for _ in range(2):
        r.authserver.then_slowly(stale)
    assert (await r.ask()).status == 503
    assert len(r.authserver.received) == 2
    assert r.metric("tokenward_sidecar_cache_entries") == 0


async def test_a_handle_is_remembered_for_a_minute(r: Harness) -> None:
    await poll(r, answered(ALICE["session"]))
    ended = r.sidecar.broker.ended
    identity = None
    await hold(r, OTHER_JWT, BOB)
    assert not ended.cover(identity, r.clock())
    r.clock.advance(REMEMBERED_SECONDS)
    await r.sidecar.tick()
    assert ended.announce([("id-c1-0", ALICE["session"])]) == {ALICE["session"]}


@pytest.mark.parametrize("flag", ["reset", "everything"])
async def test_everything_goes_where_the_authserver_says_so(r: Harness, flag: str) -> None:
    streams = Streams()
    r.sidecar.revocations.follow(streams)
    await hold(r, JWT, ALICE)
    let_go = asyncio.Event()
    r.authserver.then_slowly(held_until(let_go, lambda: release(**BOB)))
    asking = asyncio.create_task(r.ask(jwt=OTHER_JWT))
    await r.authserver.until_received(2)
    flags: dict[str, Any] = {flag: True}
    await poll(r, answered(**flags))
    assert r.metric("tokenward_sidecar_cache_entries") == 0
    assert streams.heard == ["look again"]
    r.clock.advance(1)
    let_go.set()
    assert (await asking).status == 200
    assert len(r.authserver.received) == 4  # asked once more


async def test_a_gap_keeps_the_memory_and_lets_streams_be_looked_at(r: Harness) -> None:
    streams = Streams()
    r.sidecar.revocations.follow(streams)
    await hold(r, JWT, ALICE)
    await poll(r, answered("somebody", gap=True))
    assert r.metric("tokenward_sidecar_cache_entries") == 1
    assert streams.heard == [frozenset({"somebody"}), "look again"]


async def test_streams_hear_of_each_ending_once(r: Harness) -> None:
    streams = Streams()
    r.sidecar.revocations.follow(streams)
    await poll(r, answered("a=s1", "b=s2"))
    await poll(r, answered("a=s1", "b=s2", "c=s3"))
    await poll(r, answered("a=s1"))
    assert streams.heard == [frozenset({"s1", "s2"}), frozenset({"s3"})]


async def test_an_older_authserver_has_no_feed(r: Harness) -> None:
    await hold(r, JWT, ALICE)
    assert await poll(r, refuse(404, "not_found")) >= 150
    assert r.metric("tokenward_sidecar_revocation_polls_total", result="unsupported") == 1
    assert (await r.ask()).status == 200
    assert r.metric("tokenward_sidecar_revocation_feed_up") == 0
    await poll(r, answered())
    assert r.metric("tokenward_sidecar_revocation_feed_up") == 1


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_a_refused_poll_costs_nothing_but_time(r: Harness, status: int) -> None:
    await hold(r, JWT, ALICE)
    pauses = [await poll(r, refuse(status, "any")) for _ in range(6)]
    assert pauses == [1, 2, 4, 8, 15, 15]  # half of it, where the jitter draws nothing
    assert r.metric("tokenward_sidecar_cache_entries") == 1
    assert r.metric("tokenward_sidecar_revocation_polls_total", result="failed") == 6
    await poll(r, answered())
    assert await poll(r, refuse(status, "any")) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"ended": []}', b'{"cursor": "c"}', b'{"ended": {}, "cursor": "c"}',
        b'{"ended": ["h"], "cursor": "c"}', b'{"ended": [{"id": "i"}], "cursor": "c"}',
        b'{"ended": [{"id": "i", "handle": "a b"}], "cursor": "c"}',
        b'{"ended": [], "cursor": ""}', b'{"ended": [], "cursor": "c", "gap": 1}',
        b'{"ended": [], "cursor": "c", "cursor": "d"}',
        b'{"ended": [], "cursor": "' + b"c" * 513 + b'"}',
        b'{"ended": [], "cursor": "c", "x": "' + b"x" * 1024 * 1024 + b'"}',
    ],
)  # fmt: skip
async def test_an_answer_that_is_none_is_a_failure(r: Harness, body: bytes) -> None:
    assert await poll(r, web.Response(body=body, content_type="application/json")) == 1
    assert r.metric("tokenward_sidecar_revocation_polls_total", result="failed") == 1


async def test_an_authserver_that_is_gone_is_a_failure(r: Harness) -> None:
    await r.authserver.stop()
    assert await r.sidecar.revocations.poll() == 1


async def test_without_a_certificate_nothing_is_asked(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with harness(tmp_path, authorities, credential=False) as r:
        assert await r.sidecar.revocations.poll() == 1
        assert r.authserver.received == []


async def test_polls_use_one_connection_and_leave_that_of_a_replaced_certificate(
    r: Harness,
) -> None:
    old = r.authserver.serials
    for cursor in ("c1", "c2", "c3"):
        await poll(r, answered(cursor=cursor))
    assert r.authserver.connections == 1
    serial = r.write_credential()
    await r.sidecar.tick()
    await poll(r, answered(cursor="c4"))
    assert r.authserver.serials[-1] == serial
    assert old != r.authserver.serials


async def test_sidecars_that_were_sent_away_together_come_back_one_after_the_other(
    tmp_path: Path, authorities: Authorities
) -> None:
    pauses: list[float] = []
    async with fake_authserver(tmp_path, authorities) as authserver:
        (tmp_path / "credential").mkdir()
        for number in range(50):
            settings = read_settings(environment(tmp_path, authserver.url))
            sidecar = build(settings, timeouts=Timeouts(), jitter=partial(truediv, number, 50))
            pauses.append(await sidecar.revocations.poll())
            await sidecar.close()
    assert len({round(pause, 1) for pause in pauses}) > 15
    assert max(pauses) - min(pauses) > 1.5


async def test_an_early_answer_without_news_is_that_of_a_server_that_goes(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with harness(tmp_path, authorities) as r:
        r.sidecar.revocations._jitter = lambda: 0.5
        assert await poll(r, answered()) == 2.5

        async def late(_: Received) -> web.StreamResponse:
            r.clock.advance(25)
            return answered(cursor="c2")

        r.authserver.then_slowly(late)
        assert await r.sidecar.revocations.poll() == 0
        assert await poll(r, answered("s1", cursor="c3")) == 0
        assert r.sidecar.revocations.heard_at == r.clock()
