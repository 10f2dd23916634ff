"""Promise 2: a refresh token is never presented twice; no failure costs a token that is good."""

import asyncio
import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.fakes.upstream import Answer as Refreshed
from tests.fakes.upstream import (
    Held,
    HostileUpstream,
    changing,
    hanging_up,
    saying,
)
from tests.support.deployment import TASKS
from tests.support.refreshes import (
    EXPIRED,
    FRESH,
    MUST_SIGN_IN,
    STALE,
    UNAVAILABLE,
    left_behind,
    rig,
)
from tests.support.workloads import (
    DENIED,
    NOTES_SERVER,
    TASKS_SERVER,
    audited,
    line,
    replica,
    verdict,
)


def sha256(token: str) -> str:
    digest = hashlib.sha256(token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


# When.


@pytest.mark.parametrize(
    ("passed", "min_ttl", "refreshes"),
    [
        (FRESH, "0", 0),
        (69, "0", 0),
        # From 70 to 80 it may be renewed while nobody waits: see test_presenting.
        (80, "0", 1),
        (50, "49", 0),
        (50, "50", 1),
        (EXPIRED, "0", 1),
        (5, "600", 0),  # it was just obtained: another would last no longer
        (10, "600", 1),
    ],
)
async def test_a_token_is_refreshed_when_too_little_of_its_life_is_left(
    tmp_path: Path, passed: int, min_ttl: str, refreshes: int
) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(passed)
        for _ in range(3):
            answer = await rigged.exchange(min_ttl=min_ttl)
            assert answer.json()["access_token"] == f"access-{1 + refreshes}"
        assert rigged.upstream.presented == ["refresh-1"][:refreshes]


async def test_a_token_of_two_seconds_is_refreshed_before_less_than_one_is_left(
    tmp_path: Path,
) -> None:
    """A fifth of its life is less than the second that a released token has at least."""
    async with rig(tmp_path, lifetime=2) as rigged:
        rigged.world.clock.advance(1.2)
        assert await rigged.token() == "access-2"


async def test_a_token_without_an_end_is_kept(tmp_path: Path) -> None:
    async with rig(tmp_path, lifetime=None) as rigged:
        rigged.world.clock.advance(800)
        answer = (await rigged.exchange(min_ttl="600")).json()
        assert "expires_in" not in answer
        assert answer["cache_ttl"] == 60
        assert not rigged.upstream.presented


async def test_every_refresh_presents_the_token_the_last_one_brought(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        for turn in range(1, 5):
            rigged.world.clock.advance(EXPIRED)
            assert await rigged.token() == f"access-{turn + 1}"
        assert rigged.upstream.presented == [f"refresh-{turn}" for turn in range(1, 5)]


# Once.


async def test_many_callers_at_two_instances_cause_one_refresh(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged, replica(rigged.world) as other:
        held = Held()
        rigged.upstream.then(held)
        rigged.world.clock.advance(EXPIRED)
        tls = rigged.world.tls(rigged.world.svid(NOTES_SERVER))
        calls = [
            asyncio.create_task(world.exchange_with(tls, rigged.user.access_token))
            for _ in range(30)
            for world in (rigged.world, other)
        ]
        await rigged.upstream.until_presented(1)
        asyncio.get_running_loop().call_later(0.3, held.let_go)
        answers = await asyncio.gather(*calls)
        assert {answer.status for answer in answers} == {200}
        assert {answer.json()["access_token"] for answer in answers} == {"access-2"}
        assert rigged.upstream.presented == ["refresh-1"]


async def test_a_caller_that_goes_away_takes_no_refresh_along(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        held = Held()
        rigged.upstream.then(held)
        rigged.world.clock.advance(EXPIRED)
        caller = asyncio.create_task(rigged.exchange())
        await rigged.upstream.until_presented(1)
        waiting = asyncio.create_task(rigged.exchange())
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        asyncio.get_running_loop().call_later(0.1, held.let_go)
        assert (await waiting).json()["access_token"] == "access-2"
        assert await rigged.token() == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


# What upstreams answer: with a token that is still good, and with one that is not.

ENDED = saying(400, {"error": "invalid_grant"})
# What becomes of the refresh token: given up; presented again; its successor is presented.
OVER, AGAIN, NEXT = "over", "again", "next"
ANSWERS: list[tuple[str, Refreshed, str]] = [
    ("invalid_grant", ENDED, OVER),
    ("INVALID_GRANT", saying(400, {"error": "INVALID_GRANT"}), OVER),
    ("GitHub's 200", saying(200, {"error": "bad_refresh_token"}), OVER),
    ("interaction", saying(400, {"error": "interaction_required"}), OVER),
    ("expired", saying(401, {"error": "expired_token"}), OVER),
    ("500", saying(500, {}), AGAIN),
    ("502", saying(502, "<h1>bad gateway</h1>"), AGAIN),
    ("504", saying(504, {}), AGAIN),
    ("503 in HTML", saying(503, "<h1>down</h1>"), AGAIN),
    ("wrong client", saying(401, {"error": "invalid_client"}), AGAIN),
    ("another word", saying(400, {"error": "invalid_request"}), AGAIN),
    ("HTML", saying(200, "<h1>hello</h1>"), AGAIN),
    ("half an object", saying(200, '{"access_token": "x'), AGAIN),
    ("a list", saying(200, [1]), AGAIN),
    ("10 MB", changing(padding="x" * 10_000_000), AGAIN),
    ("nothing", hanging_up, AGAIN),
    ("no access token", changing(access_token=None), NEXT),
    ("an odd access token", changing(access_token="a\r\nb"), NEXT),
    ("a list as token", changing(access_token=["a"]), NEXT),
    ("a bound token", changing(token_type="DPoP"), NEXT),
    ("no token at all", changing(access_token=None, refresh_token=None), AGAIN),
]


@pytest.mark.parametrize("rotates", [True, False], ids=["rotates", "does not"])
@pytest.mark.parametrize(
    ("answer", "fate"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS]
)
async def test_what_a_failed_refresh_costs(
    tmp_path: Path, answer: Refreshed, fate: str, rotates: bool
) -> None:
    """Only the upstream's own word ends a connection; what is unknown is asked again."""
    async with rig(tmp_path, rotates=rotates) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(answer)
        assert verdict(await rigged.exchange()) == (MUST_SIGN_IN if fate == OVER else UNAVAILABLE)
        again = await rigged.exchange()
        if fate == OVER:
            assert verdict(again) == MUST_SIGN_IN
            assert rigged.upstream.presented == ["refresh-1"]
        else:
            assert again.status == 200
            second = "refresh-1" if fate == AGAIN else "refresh-2"
            assert rigged.upstream.presented == ["refresh-1", second]


ODD_MEMBERS: dict[str, dict[str, Any]] = {
    "no type": {"token_type": None},
    "an empty type": {"token_type": ""},
    "an empty error": {"error": ""},
    "an error beside it": {"error": "server_error"},
    "no life": {"expires_in": None},
    "a life of zero": {"expires_in": 0},
    "a life below zero": {"expires_in": -1},
    "a life in words": {"expires_in": "soon"},
    "a true life": {"expires_in": True},
    "a list as life": {"expires_in": [1]},
}


@pytest.mark.parametrize("members", ODD_MEMBERS.values(), ids=ODD_MEMBERS)
async def test_an_answer_with_a_usable_token_is_kept_whatever_else_is_odd(
    tmp_path: Path, members: dict[str, Any]
) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(changing(**members))
        released = (await rigged.exchange()).json()
        assert released["access_token"] == "access-2"
        if "expires_in" in members:
            assert "expires_in" not in released
        assert rigged.upstream.presented == ["refresh-1"]


@pytest.mark.parametrize(
    ("said", "seconds"), [(3600.9, 3600), ("3600", 3600), ("3600.0", 3600), (10**18, 315360000)]
)
async def test_a_life_is_read_as_it_is_meant(tmp_path: Path, said: Any, seconds: int) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(changing(expires_in=said))
        assert (await rigged.exchange()).json()["expires_in"] == seconds


@pytest.mark.parametrize("answer", [row[1] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
async def test_a_token_that_is_still_good_outlives_every_failure(
    tmp_path: Path, answer: Refreshed
) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(STALE)
        rigged.upstream.then(answer, answer)
        for _ in range(2):
            released = (await rigged.exchange()).json()
            assert released["access_token"] == "access-1"
            assert (released["expires_in"], released["cache_ttl"]) == (10, 0)


async def test_a_failure_is_told_to_whoever_needs_longer_than_the_token_lasts(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(STALE)
        rigged.upstream.then(saying(500, {}), saying(500, {}))
        assert verdict(await rigged.exchange(min_ttl="20")) == UNAVAILABLE
        assert await rigged.token(min_ttl="5") == "access-1"


@pytest.mark.parametrize(
    ("passed", "expected"), [(EXPIRED, UNAVAILABLE), (STALE, None)], ids=["expired", "still good"]
)
async def test_an_upstream_that_never_answers_costs_nobody_a_sign_in(
    tmp_path: Path, passed: int, expected: Any
) -> None:
    async with rig(tmp_path, answer_within=0.3) as rigged:
        rigged.world.clock.advance(passed)
        held = Held()
        rigged.upstream.then(held)
        answer = await rigged.exchange()
        held.let_go()
        if expected is None:
            assert answer.json()["access_token"] == "access-1"
            await rigged.exchange()
            # Reuse detection would end the token that still serves too.
            assert rigged.upstream.presented == ["refresh-1"]
        else:
            assert verdict(answer) == expected
            assert await rigged.token() == "access-3"
            assert rigged.upstream.presented == ["refresh-1"] * 2


@pytest.mark.parametrize("status", [302, 307, 308])
async def test_a_redirect_takes_no_secret_to_another_host(tmp_path: Path, status: int) -> None:
    async with rig(tmp_path) as rigged, HostileUpstream().serve() as elsewhere:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(saying(status, {}, Location=f"{elsewhere.issuer}/token"))
        assert verdict(await rigged.exchange()) == UNAVAILABLE
        assert not elsewhere.presented


async def test_a_refresh_token_is_kept_where_no_new_one_comes(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.upstream.then(changing(refresh_token=None))
        for turn in (2, 3):
            rigged.world.clock.advance(EXPIRED)
            assert await rigged.token() == f"access-{turn}"
        assert rigged.upstream.presented == ["refresh-1", "refresh-1"]


async def test_a_grant_that_became_another_users_is_dropped(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(changing(id_token=rigged.upstream.id_token("user-2")))
        for _ in range(2):
            assert verdict(await rigged.exchange()) == MUST_SIGN_IN
        assert rigged.upstream.presented == ["refresh-1"]


@pytest.mark.parametrize("id_token", ["x", "a.b.c", 7])
async def test_an_id_token_that_proves_nothing_costs_nothing(
    tmp_path: Path, id_token: object
) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(changing(id_token=id_token))
        assert await rigged.token() == "access-2"


async def test_an_upstream_that_cannot_be_found_is_not_taken_for_one_that_may_have_acted(
    tmp_path: Path,
) -> None:
    """However many wait for its metadata at once: none of their tokens has been presented."""
    async with rig(tmp_path) as rigged:
        tasks = (await rigged.world.signed_in(resource=TASKS)).access_token
        rigged.upstream.discovery_open.clear()
        rigged.world.clock.advance(EXPIRED)
        calls = [
            asyncio.create_task(rigged.exchange()),
            asyncio.create_task(rigged.world.exchange(TASKS_SERVER, tasks)),
        ]
        assert [verdict(await call) for call in calls] == [UNAVAILABLE] * 2
        rigged.upstream.discovery_open.set()
        rigged.world.clock.advance(10)
        assert (await rigged.exchange()).status == 200
        assert (await rigged.world.exchange(TASKS_SERVER, tasks)).status == 200


async def test_keys_that_cannot_be_fetched_cost_no_renewed_grant(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.upstream.jwks_open.clear()
        rigged.world.clock.advance(EXPIRED)
        assert await rigged.token() == "access-2"
        rigged.upstream.jwks_open.set()


# Crashes.


@pytest.mark.parametrize("rotates", [True, False])
async def test_after_a_crash_the_token_is_presented_again(tmp_path: Path, rotates: bool) -> None:
    async with rig(tmp_path, rotates=rotates) as rigged:
        rigged.world.clock.advance(EXPIRED)
        await left_behind(rigged, 61)
        assert await rigged.token() == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


async def test_after_a_crash_a_token_that_is_still_good_is_released(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(STALE)
        await left_behind(rigged, 61)
        assert await rigged.token() == "access-1"
        assert not rigged.upstream.presented


@pytest.mark.parametrize("rotates", [True, False])
async def test_a_claim_that_may_be_alive_is_waited_for(tmp_path: Path, rotates: bool) -> None:
    async with rig(tmp_path, rotates=rotates) as rigged:
        rigged.world.clock.advance(EXPIRED)
        await left_behind(rigged, 59)
        call = asyncio.create_task(rigged.exchange())
        done, _ = await asyncio.wait({call}, timeout=0.3)
        assert not done
        assert not rigged.upstream.presented
        rigged.world.clock.advance(2)
        assert (await call).json()["access_token"] == "access-2"


async def test_a_result_that_comes_after_it_was_given_up_is_kept(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        held = Held()
        rigged.upstream.then(held)
        rigged.world.clock.advance(EXPIRED)
        call = asyncio.create_task(rigged.exchange())
        await rigged.upstream.until_presented(1)
        # As another instance that waited too long.
        await rigged.sql("UPDATE connections SET dead = 1")
        held.let_go()
        assert (await call).json()["access_token"] == "access-2"
        rigged.world.clock.advance(EXPIRED)
        assert await rigged.token() == "access-3"


# Storage.


async def test_nothing_is_presented_that_could_not_be_recorded_first(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        async with rigged.refusing("refresh_claim"):
            rigged.world.clock.advance(STALE)
            assert await rigged.token() == "access-1"
            rigged.world.clock.advance(EXPIRED - STALE)
            assert verdict(await rigged.exchange()) == UNAVAILABLE
        await rigged.world.server.drain()
        assert not rigged.upstream.presented
        assert await rigged.token() == "access-2"


async def test_storage_that_fails_is_named_and_no_upstream_is_blamed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The alert on storage counts the reason; as the upstream's it would wake somebody else."""
    with audited(caplog) as trail:
        async with rig(tmp_path) as rigged, rigged.refusing("refresh_claim"):
            rigged.world.clock.advance(EXPIRED)
            assert verdict(await rigged.exchange()) == UNAVAILABLE
            await rigged.world.server.drain()
        assert trail.reason == "storage_down"
        assert "refresh_broke_off" not in {record.message for record in caplog.records}


async def test_a_result_is_stored_as_soon_as_storage_works_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        async with rigged.refusing("sealed_tokens"):
            rigged.world.clock.advance(EXPIRED)
            call = asyncio.create_task(rigged.exchange())
            await rigged.upstream.until_presented(1)
            done, _ = await asyncio.wait({call}, timeout=0.15)
            assert not done
        assert (await call).json()["access_token"] == "access-2"
        assert await rigged.token() == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


# SessionTermination.


@pytest.mark.parametrize("passed", [STALE, EXPIRED])
@pytest.mark.parametrize("answer", [None, ENDED, saying(500, {})])
async def test_a_session_revoked_while_its_token_is_refreshed_gets_nothing(
    tmp_path: Path, passed: int, answer: Refreshed | None
) -> None:
    async with rig(tmp_path) as rigged:
        held = Held(answer)
        rigged.upstream.then(held)
        rigged.world.clock.advance(passed)
        call = asyncio.create_task(rigged.exchange())
        await rigged.upstream.until_presented(1)
        await rigged.revoke(rigged.user)
        held.let_go()
        assert verdict(await call) == MUST_SIGN_IN
        assert await rigged.sql("SELECT * FROM connections") == []
        assert verdict(await rigged.exchange()) == DENIED


@pytest.mark.parametrize("passed", [STALE, EXPIRED])
@pytest.mark.parametrize("answer", [None, saying(500, {})])
async def test_another_session_of_the_user_keeps_what_a_revoked_one_waited_for(
    tmp_path: Path, passed: int, answer: Refreshed | None
) -> None:
    async with rig(tmp_path) as rigged:
        other = await rigged.world.signed_in()
        held = Held(answer)
        rigged.upstream.then(held)
        rigged.world.clock.advance(passed)
        call = asyncio.create_task(rigged.exchange())
        await rigged.upstream.until_presented(1)
        await rigged.revoke(rigged.user)
        held.let_go()
        answered = await call
        assert verdict(answered) == MUST_SIGN_IN
        kept = await rigged.world.exchange(NOTES_SERVER, other.access_token)
        assert kept.status == 200


async def test_a_sign_in_during_a_refresh_is_what_counts(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        held = Held()
        rigged.upstream.then(held)
        rigged.world.clock.advance(EXPIRED)
        call = asyncio.create_task(rigged.exchange())
        await rigged.upstream.until_presented(1)
        await rigged.world.signed_in()  # access-3: the held answer made the second one
        held.let_go()
        assert (await call).json()["access_token"] == "access-3"
        rigged.world.clock.advance(EXPIRED)
        assert await rigged.token() == "access-4"
        assert rigged.upstream.presented == ["refresh-1", "refresh-3"]


# Tokens an API has refused.


async def test_a_rejected_token_is_replaced_once_however_many_report_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged, replica(rigged.world) as other:
        held = Held()
        rigged.upstream.then(held)
        tls = rigged.world.tls(rigged.world.svid(NOTES_SERVER))
        rejected = sha256("access-1")
        rigged.world.clock.advance(60)
        calls = [
            asyncio.create_task(
                world.exchange_with(tls, rigged.user.access_token, rejected_token_sha256=rejected)
            )
            for _ in range(10)
            for world in (rigged.world, other)
        ]
        await rigged.upstream.until_presented(1)
        asyncio.get_running_loop().call_later(0.3, held.let_go)
        answers = await asyncio.gather(*calls)
        assert {answer.json().get("access_token") for answer in answers} == {"access-2"}
        assert await rigged.token(rejected_token_sha256=rejected) == "access-2"
        assert rigged.upstream.presented == ["refresh-1"]


async def test_a_token_nobody_holds_is_not_replaced(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        assert await rigged.token(rejected_token_sha256=sha256("another")) == "access-1"
        assert not rigged.upstream.presented


async def test_a_rejected_token_is_not_released_again_when_it_cannot_be_replaced(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(60)
        rigged.upstream.then(saying(500, {}))
        answer = await rigged.exchange(rejected_token_sha256=sha256("access-1"))
        assert verdict(answer) == UNAVAILABLE


async def test_a_report_of_rejection_causes_one_refresh_a_minute(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged, line(rigged.world) as sidecar:
        rejected = sha256("access-1")
        rigged.upstream.then(saying(503, {}))
        statuses = []
        for seconds in (60, 0, 59, 2):
            rigged.world.clock.advance(seconds)
            answer = await sidecar.exchange(
                rigged.user.access_token, rejected_token_sha256=rejected
            )
            statuses.append(answer.status)
        assert statuses == [503, 429, 429, 200]
        assert rigged.upstream.presented == ["refresh-1"] * 2


async def test_a_dead_connection_whose_token_is_rejected_answers_nobody(tmp_path: Path) -> None:
    """Neither this client nor another one of the user; a token that is not rejected serves on."""
    async with rig(tmp_path) as rigged:
        other = await rigged.world.signed_in()
        rigged.world.clock.advance(60)
        rigged.upstream.then(ENDED)
        answer = await rigged.exchange(min_ttl="50")
        assert verdict(answer) == MUST_SIGN_IN
        token = await rigged.token()
        answer = await rigged.exchange(rejected_token_sha256=sha256(token))
        assert verdict(answer) == MUST_SIGN_IN
        for jwt in (rigged.user.access_token, other.access_token):
            assert verdict(await rigged.world.exchange(NOTES_SERVER, jwt)) == MUST_SIGN_IN
        assert len(rigged.upstream.presented) == 1


async def test_a_rejected_token_whose_refresh_is_refused_is_never_released_again(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as rigged:
        rigged.world.clock.advance(60)
        rigged.upstream.then(ENDED)
        for rejected in (sha256("access-1"), None):
            answer = await rigged.exchange(rejected_token_sha256=rejected)
            assert verdict(answer) == MUST_SIGN_IN


async def test_a_fresh_token_is_replaced_only_where_the_upstream_refuses_it_too(
    tmp_path: Path,
) -> None:
    """APIs say 401 for reasons of their own."""
    async with rig(tmp_path) as rigged:
        rejected = sha256("access-1")
        assert await rigged.token(rejected_token_sha256=rejected) == "access-1"
        assert rigged.upstream.questions == 1
        assert rigged.upstream.presented == []
        rigged.upstream.refuses_access_tokens = True
        answer = await rigged.exchange(rejected_token_sha256=rejected)
        assert answer.status == 429, "it is asked once a minute"
        assert rigged.upstream.questions == 1


async def test_a_fresh_token_that_the_upstream_refuses_is_replaced(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        rigged.upstream.refuses_access_tokens = True
        assert await rigged.token(rejected_token_sha256=sha256("access-1")) == "access-2"
        assert rigged.upstream.questions == 1


@pytest.mark.parametrize("refused", [True, False])
async def test_a_token_that_cannot_be_refreshed_ends_by_the_upstreams_word_alone(
    tmp_path: Path, refused: bool
) -> None:
    async with rig(tmp_path, lifetime=None) as rigged:
        rigged.upstream.then(changing(expires_in=None))
        found = await rigged.connection()
        claims = rigged.world.server._stores.claims
        assert await claims.claim(found, "c", 0)
        kept = replace(found.tokens, refresh_token=None)
        assert await claims.swap(found, "c", kept)
        rigged.world.clock.advance(600)
        rigged.upstream.refuses_access_tokens = refused
        answer = await rigged.exchange(rejected_token_sha256=sha256("access-1"))
        if refused:
            assert verdict(answer) == MUST_SIGN_IN
            assert verdict(await rigged.exchange()) == MUST_SIGN_IN
        else:
            assert answer.json()["access_token"] == "access-1"
            assert await rigged.token() == "access-1"


async def test_a_hash_that_is_none_is_refused_to_the_owner_too(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        for rejected in ("\u00e9" * 43, "x" * 44, sha256("access-1") + "="):
            answer = await rigged.exchange(rejected_token_sha256=rejected)
            assert verdict(answer) == DENIED
