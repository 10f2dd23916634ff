"""Tokens that an exchange makes (RFC 8693), through the door that sidecars use."""

import asyncio
import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.exchanging_upstream import ACCESS_TOKEN, GRANT_TYPE
from tests.fakes.upstream import Held, changing, hanging_up, saying
from tests.support.database_file import dump
from tests.support.deployment import deployed
from tests.support.exchanging import EXCHANGE, exchanging, notes, orders
from tests.support.workloads import (
    DENIED,
    NOTES_SERVER,
    TASKS_SERVER,
    audited,
    replica,
    verdict,
)

UNAVAILABLE = (503, {"error": "temporarily_unavailable"})
MUST_SIGN_IN = (400, {"error": "invalid_grant"})
WEEK = 7 * 86_400


async def test_the_provider_is_asked_for_exactly_what_is_configured(tmp_path: Path) -> None:
    (tmp_path / "own-secret").write_text("own secret\n")
    own: dict[str, Any] = {"clientId": "orders-client", "clientSecretFile": "own-secret"}
    async with exchanging(tmp_path, **own, tokenParameters={"tenant": "t1"}) as r:
        answer = (await r.exchange()).json()
        assert (answer["access_token"], answer["upstream"]) == ("made-1", "orders")
        assert answer["scope"] == "orders.read orders.write"
        assert answer["expires_in"] == 100
        assert not {"refresh_token", "id_token"} & answer.keys()
        assert r.upstream.exchanges == [
            {
                "grant_type": [GRANT_TYPE],
                "subject_token": ["access-1"],
                "subject_token_type": [ACCESS_TOKEN],
                "requested_token_type": [ACCESS_TOKEN],
                "audience": ["orders", "billing"],
                "resource": ["https://orders.example.com/api"],
                "scope": ["orders.read orders.write"],
                "tenant": ["t1"],
            }
        ]
        assert r.upstream.clients == ["Basic b3JkZXJzLWNsaWVudDpvd24lMjBzZWNyZXQ="]


async def test_a_stored_token_is_released_until_it_is_stale_and_then_made_again(
    tmp_path: Path,
) -> None:
    async with exchanging(tmp_path) as r:
        assert [await r.token() for _ in range(3)] == ["made-1"] * 3
        r.world.clock.advance(90)
        assert await r.token() == "made-2"
        # The parent's own token was stale as well, and was renewed for it.
        assert r.upstream.exchanges[-1]["subject_token"] == ["access-2"]


async def test_min_ttl_makes_a_token_that_lives_long_enough(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        r.world.clock.advance(30)
        assert await r.token(min_ttl="90") == "made-2"


async def test_each_audience_and_scope_has_a_token_of_its_own(tmp_path: Path) -> None:
    wishes: list[dict[str, str | None]] = [
        {},
        {"target_audience": "orders"},
        {"target_audience": "billing"},
        {"target_audience": "https://orders.example.com/api"},
        {"scope": "orders.read"},
        {"target_audience": "orders", "scope": "orders.read"},
        {"target_audience": "orders", "scope": "orders.write"},
    ]
    async with exchanging(tmp_path) as r:
        first = [await r.token(**wish) for wish in wishes]
        assert len(set(first)) == len(wishes)
        assert [await r.token(**wish) for wish in reversed(wishes)] == first[::-1]
        asked = [
            {name: one.get(name) for name in ("audience", "resource", "scope")}
            for one in r.upstream.exchanges
        ]
        both, url = ["orders.read orders.write"], ["https://orders.example.com/api"]
        assert asked == [
            {"audience": ["orders", "billing"], "resource": url, "scope": both},
            {"audience": ["orders"], "resource": None, "scope": both},
            {"audience": ["billing"], "resource": None, "scope": both},
            {"audience": None, "resource": url, "scope": both},
            {"audience": ["orders", "billing"], "resource": url, "scope": ["orders.read"]},
            {"audience": ["orders"], "resource": None, "scope": ["orders.read"]},
            {"audience": ["orders"], "resource": None, "scope": ["orders.write"]},
        ]
        # The same wish in another order is the same token.
        whole = await r.token(scope="orders.write orders.read")
        assert whole == first[0]


@pytest.mark.parametrize(
    ("wish", "error", "reason"),
    [
        ({"target_audience": "payroll"}, "invalid_target", "target_audience_not_permitted"),
        ({"target_audience": "orders/"}, "invalid_target", None),
        ({"target_audience": "ORDERS"}, "invalid_target", None),
        ({"target_audience": "https://orders.example.com/api/"}, "invalid_target", None),
        ({"scope": "orders.admin"}, "invalid_scope", "scope_not_permitted"),
        ({"scope": "orders.read orders.admin"}, "invalid_scope", "scope_not_permitted"),
        ({"target_audience": "orders", "scope": "openid"}, "invalid_scope", None),
        ({"missing_scope": "orders.read"}, "invalid_request", "missing_scope_not_permitted"),
    ],
    ids=str,
)
async def test_a_wider_wish_is_told_to_the_owner_alone_and_leaves_nothing(
    tmp_path: Path,
    wish: dict[str, str],
    error: str,
    reason: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with exchanging(tmp_path) as r:
        before = await dump(r.world.folder)
        with audited(caplog) as trail:
            answer = await r.exchange(**wish)
        assert (answer.status, answer.json()["error"]) == (400, error)
        assert answer.json()["parameter"] == list(wish)[-1]
        assert reason in (None, trail.reason)
        assert r.upstream.exchanges == []
        assert await dump(r.world.folder) == before
        stranger = await r.world.exchange(
            TASKS_SERVER, r.user.access_token, audience="orders", **wish
        )
        assert verdict(stranger) == DENIED


async def test_many_callers_and_replicas_cause_one_exchange(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r, replica(r.world) as other:
        held = Held()
        r.upstream.then_exchange(held)
        jwt = r.user.access_token
        calls = [
            asyncio.create_task(world.exchange(NOTES_SERVER, jwt, audience="orders"))
            for world in (r.world, other) * 5
        ]
        await r.upstream.until_exchanged(1)
        held.let_go()
        answers = await asyncio.gather(*calls)
        assert {answer.json().get("access_token") for answer in answers} == {"made-1"}
        assert len(r.upstream.exchanges) == 1


async def test_a_refresh_token_of_an_exchange_is_used_and_then_made_up_for(tmp_path: Path) -> None:
    async with exchanging(tmp_path, gives_refresh_tokens=True) as r:
        assert await r.token() == "made-1"
        r.world.clock.advance(90)
        # The fake answers refreshes with tokens of its usual kind.
        assert await r.token() == "access-2"
        assert r.upstream.presented == ["renew-1"]
        r.world.clock.advance(90)
        r.upstream.then(saying(400, {"error": "invalid_grant"}))
        assert await r.token() == "made-2"
        assert (await r.exchange(audience="acme")).status == 200


async def test_a_refresh_that_brings_more_than_was_asked_for_is_not_used(tmp_path: Path) -> None:
    async with exchanging(tmp_path, gives_refresh_tokens=True) as r:
        await r.token()
        r.world.clock.advance(90)
        r.upstream.then(changing(scope="orders.read orders.write admin"))
        assert await r.token() == "made-2"


async def test_a_dead_parent_needs_its_user_and_says_where(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        await r.token()
        r.world.clock.advance(100)
        r.upstream.then(saying(400, {"error": "invalid_grant"}))
        answer = await r.exchange()
        assert verdict(answer) == MUST_SIGN_IN
        assert answer.json()["connect_url"].startswith(f"{r.world.issuer}/connect/")
        assert verdict(await r.exchange()) == MUST_SIGN_IN
        refused = await r.world.refresh(r.user.client_id, r.user.refresh_token)
        assert refused.json()["error"] in {"invalid_grant", "invalid_request"}


async def test_what_was_made_of_a_dead_parent_is_not_released_though_it_lives(
    tmp_path: Path,
) -> None:
    async with exchanging(tmp_path) as r:
        await r.token()
        await r.sql("UPDATE connections SET dead = 1")
        assert verdict(await r.exchange()) == MUST_SIGN_IN
        assert len(r.upstream.exchanges) == 1


async def test_a_refused_parent_token_is_renewed_once_and_exchanged_again(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        r.world.clock.advance(61)  # older than what is never renewed on a report alone
        r.upstream.over.add("access-1")
        r.upstream.lifetime = 1000
        assert await r.token() == "made-2"
        assert [one["subject_token"] for one in r.upstream.exchanges] == [
            ["access-1"],
            ["access-2"],
        ]


async def test_a_policy_that_refuses_every_token_does_not_rotate_the_grant_each_minute(
    tmp_path: Path,
) -> None:
    async with exchanging(tmp_path, lifetime=10_000) as r:
        for _ in range(5):
            r.world.clock.advance(61)
            r.upstream.then_exchange(*[saying(400, {"error": "invalid_request"})] * 2)
            assert verdict(await r.exchange()) == UNAVAILABLE
        assert len(r.upstream.presented) == 1
        assert (await r.exchange(audience="acme")).status == 200


async def test_a_grant_that_ended_at_the_provider_is_found_out_by_the_exchange(
    tmp_path: Path,
) -> None:
    async with exchanging(tmp_path, lifetime=1000) as r:
        r.world.clock.advance(61)
        r.upstream.over.add("access-1")
        r.upstream.then(saying(400, {"error": "invalid_grant"}))
        assert verdict(await r.exchange()) == MUST_SIGN_IN


CANARY = "value-of-the-provider"


@pytest.mark.parametrize(
    ("answer", "member"),
    [
        (changing(access_token=None), "access_token"),
        (changing(access_token=7), "access_token"),
        (changing(access_token=f"{CANARY} with space"), "access_token"),
        (changing(token_type=None), "token_type"),
        (changing(token_type=CANARY), "token_type"),
        (changing(token_type="N_A"), "token_type"),
        (changing(issued_token_type=None), "issued_token_type"),
        (changing(issued_token_type=CANARY), "issued_token_type"),
        (changing(scope=f"orders.read {CANARY}"), "scope"),
        (saying(400, {"error": "invalid_target", "error_description": CANARY}), "error"),
        (saying(403, {"error": "access_denied", "error_description": CANARY}), "error"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_a_fault_with_a_name_and_no_value(
    tmp_path: Path, answer: Any, member: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with exchanging(tmp_path) as r:
        r.upstream.then_exchange(answer)
        with audited(caplog) as trail:
            refused = await r.exchange()
        assert verdict(refused) == UNAVAILABLE
        assert trail.reason == "upstream_exchange_failed"
        logged = [getattr(record, "fields", {}) for record in caplog.records]
        assert any(
            one.get("upstream") == "orders" and one.get("member") == member for one in logged
        )
        assert CANARY not in caplog.text + str(logged) + refused.text
        r.world.clock.advance(61)
        assert await r.token() == "made-2"


async def test_unknown_members_of_an_answer_are_kept_out(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        r.upstream.then_exchange(changing(surprise=CANARY, id_token=CANARY))
        answer = await r.exchange()
        assert answer.json()["access_token"] == "made-1"
        assert CANARY not in answer.text
        assert CANARY.encode() not in r.world.stored_bytes()
        assert b"made-1" not in r.world.stored_bytes()


async def test_a_scope_that_the_provider_always_adds_is_no_surprise(tmp_path: Path) -> None:
    async with exchanging(tmp_path, exchange=EXCHANGE | {"addedScopes": ["email"]}) as r:
        r.upstream.then_exchange(changing(scope="orders.read orders.write email"))
        assert (await r.exchange()).json()["scope"] == "orders.read orders.write email"


@pytest.mark.parametrize(
    "answer", [hanging_up, saying(502, "<html>"), saying(500, {}), saying(503, {})]
)
async def test_an_exchange_of_unknown_outcome_is_made_again_and_costs_no_sign_in(
    tmp_path: Path, answer: Any
) -> None:
    async with exchanging(tmp_path, lifetime=100_000) as r:
        r.upstream.then_exchange(answer)
        assert verdict(await r.exchange()) == UNAVAILABLE
        r.world.clock.advance(700)  # longer than a fate may be unknown
        assert await r.token() == "made-2"


async def test_a_stored_token_serves_while_the_provider_is_down(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        r.world.clock.advance(90)
        r.upstream.then_exchange(saying(503, {}))
        assert await r.token() == "made-1"
        r.world.clock.advance(10)
        r.upstream.then_exchange(saying(503, {}))
        assert verdict(await r.exchange()) == UNAVAILABLE


async def test_a_rejected_token_is_made_anew_once_a_minute(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        assert await r.token(rejected_token_sha256=sha256("made-1")) == "made-2"
        assert (await r.exchange(rejected_token_sha256=sha256("made-2"))).status == 429
        assert await r.token(rejected_token_sha256=sha256("another")) == "made-2"


async def test_an_upstream_that_is_only_exchanged_is_not_released_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with exchanging(tmp_path, exchange_only=True) as r:
        with audited(caplog) as trail:
            answer = await r.exchange(audience="acme")
        assert verdict(answer) == (400, {"error": "invalid_target"})
        assert trail.reason == "upstream_not_permitted"
        # The only one that is left need not be named.
        assert await r.token(audience=None) == "made-1"


async def test_a_session_that_did_not_name_the_upstream_does_not_get_it(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        await r.sql("UPDATE sessions SET upstreams = 'acme'")
        answer = await r.exchange()
        assert verdict(answer) == MUST_SIGN_IN
        await r.sql("UPDATE sessions SET upstreams = NULL")
        assert verdict(await r.exchange()) == MUST_SIGN_IN
        assert r.upstream.exchanges == []


async def test_another_session_of_another_user_shares_nothing(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        await r.sql("UPDATE sessions SET owner_name = 'other'")
        assert verdict(await r.exchange()) == DENIED


async def test_a_session_of_a_deleted_object_of_the_same_name_gets_none(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        for table in ("sessions", "connections"):
            await r.sql(f"UPDATE {table} SET owner_uid = 'deleted'")
        assert verdict(await r.exchange()) == DENIED
        assert len(r.upstream.exchanges) == 1


async def test_what_a_deleted_object_of_the_same_name_left_is_not_released(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        await r.sql("UPDATE connections SET owner_uid = 'deleted'")
        assert verdict(await r.exchange()) == MUST_SIGN_IN
        assert len(r.upstream.exchanges) == 1


async def test_a_blocked_user_gets_none(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        await r.sql("UPDATE users SET blocked_at = 1")
        assert verdict(await r.exchange()) == MUST_SIGN_IN


async def test_the_end_of_the_session_purges_and_revokes_what_was_made(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        await r.token()
        await r.token(scope="orders.read")
        fields = {"token": r.user.access_token, "client_id": r.user.client_id}
        assert (await r.world.call("POST", "/oauth/revoke", data=fields)).status == 200
        await r.original.server.drain()
        assert sorted(r.upstream.revoked) == ["made-1", "made-2", "refresh-1"]
        assert await r.sql("SELECT * FROM exchanged_tokens") == []
        assert verdict(await r.exchange()) == DENIED


async def test_what_was_made_for_another_client_is_revoked_when_its_connection_is_purged(
    tmp_path: Path,
) -> None:
    """The connection's own client is configured no more; that of what was made of it is."""
    (tmp_path / "own-secret").write_text("own secret\n")
    own: dict[str, Any] = {"clientId": "orders-client", "clientSecretFile": "own-secret"}
    async with exchanging(tmp_path, **own) as r:
        await r.token()
        moved = r.upstream.configuration[0] | {"clientId": "another"}
        await r.original.reconfigure(upstreams=[moved, orders(**own)])
        server, clock = r.original.server, r.original.clock
        await server.housekeeping.round()
        clock.advance(WEEK)
        renewed = "UPDATE exchanged_tokens SET renewed_at = ?"  # by a refresh token of its own
        await r.sql(renewed, int(clock()))
        await server.housekeeping.round()
        await server.drain()
        assert await r.sql("SELECT * FROM connections") == []
        assert r.upstream.revoked == ["made-1"]


async def test_the_handle_is_that_of_the_connection_it_lives_on(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        made, own = (await r.exchange()).json(), (await r.exchange(audience="acme")).json()
        assert made["connection"] == own["connection"]


async def test_another_client_at_the_provider_makes_its_own_tokens(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        acme = r.upstream.configuration[0]
        await r.world.reconfigure(upstreams=[acme, orders(clientId="other")])
        async with replica(r.world) as world:
            answer = await world.exchange(NOTES_SERVER, r.user.access_token, audience="orders")
        assert answer.json()["access_token"] == "made-2"


async def test_the_variants_of_one_user_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authserver.storage.exchanged_tokens.MAX_VARIANTS", 2)
    async with exchanging(tmp_path) as r:
        assert await r.token() == "made-1"
        r.world.clock.advance(1)
        await r.token(scope="orders.read")
        r.world.clock.advance(1)
        await r.token(scope="orders.write")
        assert await r.sql("SELECT COUNT(*) FROM exchanged_tokens") == [(2,)]
        assert await r.token() == "made-4"


async def test_a_sign_in_without_an_exchange_visits_no_exchanged_upstream(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        assert await r.sql("SELECT upstreams FROM sessions") == [("acme orders",)]
        assert await r.sql("SELECT upstream FROM connections") == [("acme",)]


async def test_a_parent_by_plain_oauth2_is_exchanged_at_its_token_endpoint(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        issuer = r.upstream.issuer
        acme = {
            "name": "acme", "type": "oauth2", "clientId": "tokenward",
            "clientSecretFile": "upstream-secret", "authorizationEndpoint": f"{issuer}/authorize",
            "tokenEndpoint": f"{issuer}/token", "userinfoEndpoint": f"{issuer}/userinfo",
            "subjectField": "sub",
        }  # fmt: skip
        folder = tmp_path / "oauth2"
        folder.mkdir()
        async with deployed(folder, upstreams=[acme, orders()], resources=notes()) as world:
            jwt = (await world.signed_in()).access_token
            answer = await world.exchange(NOTES_SERVER, jwt, audience="orders")
        assert answer.json()["access_token"].startswith("made-")


def sha256(token: str) -> str:
    digest = hashlib.sha256(token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
