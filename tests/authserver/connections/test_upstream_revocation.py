"""What is deleted is revoked at its upstream, whatever happens in between, and only once."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from authserver.config.loader import load
from authserver.connections.upstream_revocation import Fate
from authserver.storage.upstream_revocations import KEPT_SECONDS, LEASE_SECONDS, enqueue
from chassis.spiffe_id import Workload
from tests.fakes.upstream import Answer, Held, HostileUpstream, hanging_up, saying
from tests.support.database_file import count, sql
from tests.support.deployment import NOTES, TASKS, Deployment, SignedIn, deployed
from tests.support.exchanging import exchanging
from tests.support.forged_tokens import claims_of
from tests.support.workloads import NOTES_SERVER, UNLIMITED, audited, replica, verdict

HOUR, DAY = 3600, 86400
MUST_SIGN_IN = (400, {"error": "invalid_grant"})


@dataclass
class Site:
    world: Deployment
    upstream: HostileUpstream

    async def end(self, user: SignedIn) -> None:
        """The client revokes its token, which ends the session."""
        fields = {"token": user.refresh_token, "client_id": user.client_id}
        assert (await self.world.call("POST", "/oauth/revoke", data=fields)).status == 200
        await self.world.server._revoker.drain()

    async def later(self, seconds: float = HOUR) -> None:
        """Housekeeping's next round, then."""
        self.world.clock.advance(seconds)
        await self.world.server.housekeeping.round()

    async def waiting(self) -> int:
        return await count(self.world.folder, "upstream_revocations")

    def counted(self, result: str) -> float:
        labels = {"upstream": "acme", "result": result}
        name = "tokenward_authserver_upstream_revocations_total"
        return self.world.server.registry.get_sample_value(name, labels) or 0.0

    @property
    def pending(self) -> float | None:
        name = "tokenward_authserver_upstream_revocations_pending"
        return self.world.server.registry.get_sample_value(name, {"upstream": "acme"})

    def oldest_at(self) -> float | None:
        name = "tokenward_authserver_upstream_revocations_oldest_timestamp_seconds"
        return self.world.server.registry.get_sample_value(name, {"upstream": "acme"})

    async def configure(self, **members: Any) -> None:
        """Change the upstream's entry in the configuration."""
        file = self.world.folder / "authserver.yaml"
        raw = yaml.safe_load(file.read_text())
        raw["upstreams"] = [raw["upstreams"][0] | members]
        file.write_text(yaml.safe_dump(raw))
        await self.world.server.reload(load(file))

    async def crowd(self, number: int) -> None:
        """So many connections, deleted by a process that died right after."""
        store, owner = self.world.server._stores.connections, Workload("mcp-servers", "notes")
        user = await self.world.signed_in()
        [row] = await sql(self.world.folder, "SELECT user_id FROM users")
        found = (await store.of_user(row[0], owner, ""))["acme"]
        keyring = self.world.server._live.keyring
        async with self.world.server._stores.connections._database.transaction() as transaction:
            await enqueue(transaction, keyring, [found] * number, int(self.world.clock()))
        await self.end(user)


@asynccontextmanager
async def site(folder: Path, **members: Any) -> AsyncIterator[Site]:
    async with HostileUpstream().serve() as upstream:
        entry = upstream.configuration[0] | members
        async with deployed(folder, upstreams=[entry], limits=UNLIMITED) as world:
            yield Site(world, upstream)


# An upstream that cannot now.


@pytest.mark.parametrize(
    "answer",
    [
        saying(500, {}),
        saying(503, {"error": "temporarily_unavailable"}),
        saying(429, {"error": "slow_down"}),
        saying(502, "<h1>bad gateway</h1>"),
        saying(403, "<h1>a proxy</h1>"),
        saying(302, {}, Location="/elsewhere"),
        saying(401, {"error": "invalid_client"}),
        saying(400, {"error": "invalid_client"}),
        hanging_up,
    ],
)
async def test_a_revocation_that_was_not_made_is_made_later(tmp_path: Path, answer: Answer) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        s.upstream.then_revoke(answer)
        await s.end(user)
        assert await count(tmp_path, "connections") == 0
        ended_at = int(s.world.clock())
        await s.world.server.housekeeping.round()
        assert (await s.waiting(), s.pending, s.counted("queued")) == (1, 1, 1)
        assert s.oldest_at() == ended_at
        await s.later()
        assert s.upstream.revoked == ["refresh-1", "refresh-1"]
        assert (await s.waiting(), s.pending, s.counted("revoked")) == (0, None, 1)
        assert s.oldest_at() is None
        await s.later()
        assert len(s.upstream.revoked) == 2


async def test_it_is_not_asked_before_the_pause_it_named(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        s.upstream.then_revoke(saying(503, {}, **{"Retry-After": "800"}))
        await s.end(user)
        await s.later(799)
        assert len(s.upstream.revoked) == 1
        await s.later(1)
        assert len(s.upstream.revoked) == 2
        assert await s.waiting() == 0


async def test_an_upstream_that_is_down_for_an_hour_gets_few_calls_and_all_later(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as s:
        await s.crowd(150)
        calls, rounds = len(s.upstream.revoked), 30
        s.upstream.revocation_status = 503
        for _ in range(rounds):
            await s.later(HOUR / rounds)
        assert await s.waiting() == 150
        assert s.pending == 150
        # Those that were on the way when it went down, and then one in a round at most.
        assert len(s.upstream.revoked) - calls <= 8 + rounds
        s.upstream.revocation_status = 200
        for _ in range(4):
            await s.later(LEASE_SECONDS)
        await s.later(HOUR)
        assert await s.waiting() == 0


async def test_a_token_that_never_gets_an_answer_holds_up_no_other(tmp_path: Path) -> None:
    async def fails_for_the_first(request: Any, _: dict[str, Any]) -> Any:
        token = (await request.post())["token"]
        return web.Response(status=500 if token == "refresh-1" else 200)

    async with site(tmp_path) as s:
        s.upstream.then_revoke(*[fails_for_the_first] * 50)
        for _ in range(3):
            await s.end(await s.world.signed_in())
        for _ in range(5):
            await s.later(300)
        assert {"refresh-2", "refresh-3"} <= set(s.upstream.revoked)
        assert (await s.waiting(), s.counted("revoked")) == (1, 2)


async def test_what_fails_for_a_week_is_given_up_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        user_id = claims_of(user.access_token)["sub"]
        s.upstream.revocation_status = 500
        await s.end(user)
        await s.later(KEPT_SECONDS - 1)
        assert await s.waiting() == 1
        with audited(caplog) as trail:
            await s.later(2 * HOUR)
        assert (await s.waiting(), s.counted("given_up")) == (0, 1)
        [event] = [one for one in trail.events if one["action"] == "connection_purge"]
        assert (event["outcome"], event["reason"]) == ("failed", "not_revoked_upstream")
        assert user_id not in str(event)
        assert "upstream_revocation_given_up" in [record.msg for record in caplog.records]


# An upstream that will not.


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (saying(400, {"error": "invalid_request"}), "revocation_refused"),
        (saying(400, {"error": "unsupported_token_type"}), "unsupported_token_type"),
        (saying(403, {"error": "access_denied"}), "revocation_refused"),
        (saying(400, ""), "revocation_refused"),
    ],
)
async def test_a_refusal_is_final_and_listed(
    tmp_path: Path, answer: Answer, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        s.upstream.then_revoke(answer)
        with audited(caplog) as trail:
            await s.end(user)
        assert (await s.waiting(), s.counted("given_up")) == (0, 1)
        [event] = [one for one in trail.events if one["action"] == "connection_purge"]
        assert event["outcome"] == "failed"
        [said] = [r for r in caplog.records if r.msg == "upstream_revocation_given_up"]
        assert said.fields["reason"] == reason  # type: ignore[attr-defined]
        await s.later()
        assert len(s.upstream.revoked) == 1


@pytest.mark.parametrize("error", ["invalid_token", "invalid_grant"])
async def test_a_token_that_is_over_needs_no_revocation(tmp_path: Path, error: str) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        s.upstream.then_revoke(saying(400, {"error": error}))
        await s.end(user)
        assert (await s.waiting(), s.counted("revoked"), s.counted("given_up")) == (0, 1, 0)


# Processes that die, and more than one.


async def test_what_a_dead_process_left_is_revoked_by_the_next_one(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        held = Held()
        s.upstream.then_revoke(held)
        fields = {"token": user.access_token, "client_id": user.client_id}
        assert (await s.world.call("POST", "/oauth/revoke", data=fields)).status == 200
        while not s.upstream.revoked:
            await asyncio.sleep(0.01)
        [died] = s.world.server._revoker._under_way
        died.cancel()
        async with replica(s.world) as restarted:
            await restarted.server.housekeeping.round()
            assert len(s.upstream.revoked) == 1  # it could be alive
            s.world.clock.advance(LEASE_SECONDS)
            await restarted.server.housekeeping.round()
        held.let_go()
        assert s.upstream.revoked == ["refresh-1", "refresh-1"]
        assert await s.waiting() == 0


async def test_two_replicas_send_each_token_once(tmp_path: Path) -> None:
    async with site(tmp_path) as s, replica(s.world) as other:
        await s.crowd(40)
        s.upstream.revoked.clear()
        s.world.clock.advance(LEASE_SECONDS)
        revokers = (s.world.server._revoker, other.server._revoker)
        await asyncio.gather(*(revoker.retry() for revoker in revokers))
        assert len(s.upstream.revoked) == 40
        assert await s.waiting() == 0


async def test_a_crowd_at_one_moment_is_left_to_housekeeping(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.crowd(100)
        s.upstream.revoked.clear()
        revoker = s.world.server._revoker
        s.world.clock.advance(LEASE_SECONDS)
        due = await revoker._queue.due("acme", int(s.world.clock()), 100)
        claimed = [await revoker._queue.claim(one, int(s.world.clock())) for one in due]
        fates = [
            (await task).fate for task in revoker.start([one for one in claimed if one is not None])
        ]
        assert (fates.count(Fate.REVOKED), fates.count(Fate.QUEUED)) == (64, 36)
        await s.later(LEASE_SECONDS)
        assert len(s.upstream.revoked) == 100


# What comes while something ends.


@pytest.mark.parametrize("waits", [False, True])
async def test_tokens_that_a_refresh_brings_when_the_session_is_over_are_revoked_too(
    tmp_path: Path, waits: bool
) -> None:
    """`waits`: and the upstream is down at that moment."""
    async with site(tmp_path) as s:
        user, held = await s.world.signed_in(), Held()
        s.upstream.then(held)
        s.world.clock.advance(100)
        call = asyncio.create_task(s.world.exchange(NOTES_SERVER, user.access_token))
        await s.upstream.until_presented(1)
        await s.end(user)
        assert s.upstream.revoked == ["refresh-1"]
        if waits:
            s.upstream.then_revoke(saying(503, {}))
        held.let_go()
        assert verdict(await call) == MUST_SIGN_IN
        await s.world.server.drain()
        await s.later()
        assert s.upstream.revoked == ["refresh-1", "refresh-2", "refresh-2"][: 3 if waits else 2]
        assert await s.waiting() == 0


async def test_tokens_that_a_refresh_brings_after_a_sign_in_of_the_same_account_are_left_alone(
    tmp_path: Path,
) -> None:
    """At many providers they are of one grant with those of the sign-in."""
    async with site(tmp_path) as s:
        user, held = await s.world.signed_in(), Held()
        s.upstream.then(held)
        s.world.clock.advance(100)
        call = asyncio.create_task(s.world.exchange(NOTES_SERVER, user.access_token))
        await s.upstream.until_presented(1)
        await s.world.signed_in()
        held.let_go()
        assert (await call).json()["access_token"] == "access-3"
        await s.later()
        assert s.upstream.revoked == []


async def test_a_token_that_an_exchange_brings_when_the_session_is_over_is_revoked_too(
    tmp_path: Path,
) -> None:
    async with exchanging(tmp_path) as r:
        held = Held()
        r.upstream.then_exchange(held)
        call = asyncio.create_task(r.exchange())
        await r.upstream.until_exchanged(1)
        fields = {"token": r.user.access_token, "client_id": r.user.client_id}
        assert (await r.original.call("POST", "/oauth/revoke", data=fields)).status == 200
        await r.original.server.drain()
        assert r.upstream.revoked == ["refresh-1"]
        held.let_go()
        assert verdict(await call) == MUST_SIGN_IN
        await r.world.server.drain()
        assert r.upstream.revoked == ["refresh-1", "made-1"]


# Where one revocation ends all that a user granted to us.


async def test_only_the_last_connection_of_a_user_ends_the_whole_grant(tmp_path: Path) -> None:
    async with site(tmp_path, revocationEndsGrant=True) as s:
        notes, tasks = await s.world.signed_in(), await s.world.signed_in(resource=TASKS)
        await s.end(notes)
        await s.later()
        assert s.upstream.revoked == []
        assert (await s.waiting(), s.counted("still_used")) == (0, 1)
        await s.end(tasks)
        assert s.upstream.revoked == ["refresh-2"]


async def test_a_grant_that_its_user_gave_again_meanwhile_is_not_ended(tmp_path: Path) -> None:
    async with site(tmp_path, revocationEndsGrant=True) as s:
        user = await s.world.signed_in()
        s.upstream.then_revoke(saying(503, {}))
        await s.end(user)
        await s.world.signed_in(resource=NOTES)
        await s.later()
        assert s.upstream.revoked == ["refresh-1"]
        assert (await s.waiting(), s.counted("still_used")) == (0, 1)


async def test_another_account_or_client_does_not_live_on_the_grant(tmp_path: Path) -> None:
    async with site(tmp_path, revocationEndsGrant=True) as s:
        await s.world.signed_in(resource=TASKS)
        tasks = "UPDATE connections SET {} WHERE owner_name = 'tasks'"
        for number, change in enumerate(("upstream_subject = 'x'", "registered_client_id = 'x'")):
            user = await s.world.signed_in()
            await sql(tmp_path, tasks.format(change))
            await s.end(user)
            assert len(s.upstream.revoked) == number + 1
            await sql(tmp_path, tasks.format("upstream_subject = ''"))
            await sql(tmp_path, tasks.format("registered_client_id = 'tokenward'"))
        await s.end(await s.world.signed_in())  # of an account that nobody knows
        assert len(s.upstream.revoked) == 2


# Registrations.


async def test_it_waits_until_its_registration_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        await s.configure(clientId="another")
        await s.end(user)
        for _ in range(3):
            await s.later()
        assert (s.upstream.revoked, await s.waiting()) == ([], 1)
        said = [record for record in caplog.records if record.msg == "not_revoked_upstream"]
        assert len(said) == 1
        await s.configure(clientId="tokenward")
        await s.later()
        assert (s.upstream.revoked, await s.waiting()) == (["refresh-1"], 0)


async def test_a_registration_that_does_not_come_back_is_given_up_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        await s.configure(clientId="another")
        await s.end(user)
        with audited(caplog) as trail:
            await s.later(KEPT_SECONDS)
        assert (s.upstream.revoked, await s.waiting()) == ([], 0)
        [event] = [one for one in trail.events if one["action"] == "connection_purge"]
        assert event["reason"] == "not_revoked_upstream"


async def test_a_former_registration_revokes_with_its_own_secret(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        (tmp_path / "former-secret").write_text("former")
        until = "2100-01-01T00:00:00Z"
        former = {"clientId": "tokenward", "clientSecretFile": "former-secret", "until": until}
        s.upstream.then_revoke(saying(503, {}))
        await s.configure(clientId="another", former=[former])
        await s.end(user)
        await s.later()
        basic = f"Basic {base64.b64encode(b'tokenward:former').decode()}"
        assert s.upstream.revocation_clients == [basic, basic]
        assert await s.waiting() == 0


async def test_nothing_that_waits_can_be_read_in_the_database(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        user = await s.world.signed_in()
        s.upstream.then_revoke(saying(503, {}))
        await s.end(user)
        assert await s.waiting() == 1
        stolen = s.world.stored_bytes()
        assert b"refresh-1" not in stolen
        assert b"access-1" not in stolen
