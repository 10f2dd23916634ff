"""Promise 9: a client whose session can give nothing is sent to sign in, and nobody else is."""

import base64
import hashlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest

from authserver.config.loader import load
from demo.browser import Browser
from demo.upstream import FakeUpstream
from tests.support.database_file import sql
from tests.support.deployment import (
    CALLBACK,
    NOTES,
    TASKS,
    Answer,
    Deployment,
    Pkce,
    SignedIn,
    deployed,
    log_in,
)
from tests.support.sign_in_steps import finish, query_of, return_from_upstream
from tests.support.two_upstreams import configured, register_us, two_upstreams
from tests.support.workloads import NOTES_SERVER, audited, reconfigure

HOUR = 3600


def verdict(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.json().get("error")


async def refreshed(world: Deployment, user: SignedIn) -> SignedIn:
    answer = await world.refresh(user.client_id, user.refresh_token)
    assert answer.status == 200, answer.text
    return SignedIn(user.client_id, **answer.json())


async def released(world: Deployment, user: SignedIn, upstream: str | None = None) -> Answer:
    return await world.exchange(NOTES_SERVER, user.access_token, audience=upstream)


async def reload(world: Deployment, **changes: object) -> None:
    reconfigure(world, **changes)
    await world.server.reload(load(world.folder / "authserver.yaml"))


def end_grant(upstream: FakeUpstream, access_token: str) -> None:
    """The user cuts us off in the provider's settings."""
    upstream.grants.revoke(upstream.grants.bearer(access_token).refresh_token)


async def with_dead_grant(world: Deployment) -> SignedIn:
    """Alice, whose grant at the upstream is over; a release has found that out."""
    alice = await world.signed_in("alice")
    end_grant(world.upstream, (await released(world, alice)).json()["access_token"])
    world.clock.advance(HOUR)
    alice = await refreshed(world, alice)
    assert verdict(await released(world, alice)) == (400, "invalid_grant")
    return alice


async def test_after_a_dead_grant_the_clients_refresh_is_refused_before_it_rotates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        alice = await with_dead_grant(world)
        before = await sql(tmp_path, "SELECT * FROM refresh_tokens ORDER BY token_hash")
        with audited(caplog) as trail:
            for _ in range(2):
                refused = await world.refresh(alice.client_id, alice.refresh_token)
                assert verdict(refused) == (400, "invalid_grant")
        assert await sql(tmp_path, "SELECT * FROM refresh_tokens ORDER BY token_hash") == before
        grants = [event for event in trail.events if event["action"] == "token_grant"]
        assert [event["outcome"] for event in grants] == ["refused", "refused"]
        assert {event["reason"] for event in grants} == {"release_was_refused"}


async def test_a_sign_in_by_any_client_of_the_user_revives_the_session(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await with_dead_grant(world)
        bob = await world.signed_in("bob")
        assert (await world.refresh(alice.client_id, alice.refresh_token)).status == 400
        await world.signed_in("alice")
        alice = await refreshed(world, alice)
        assert (await released(world, alice)).status == 200
        assert (await refreshed(world, bob)).access_token


async def test_another_client_of_a_user_whose_identifying_connection_is_dead_is_refused_too(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        other = await world.signed_in("alice")
        await with_dead_grant(world)
        # Alice's sign-in above replaced the connection that both sessions use.
        refused = await world.refresh(other.client_id, other.refresh_token)
        assert verdict(refused) == (400, "invalid_grant")


async def test_a_missing_identifying_connection_refuses_the_refresh(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        await sql(tmp_path, "DELETE FROM connections")
        refused = await world.refresh(alice.client_id, alice.refresh_token)
        assert verdict(refused) == (400, "invalid_grant")


async def test_an_outage_at_the_upstream_refuses_no_refresh(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        world.clock.advance(HOUR)
        alice = await refreshed(world, alice)
        (world.folder / "upstream-secret").write_text("another")  # each refresh there now fails
        await reload(world)
        assert (await released(world, alice)).status == 503
        assert (await refreshed(world, alice)).access_token


async def linked(
    world: Deployment, first: FakeUpstream, second: FakeUpstream, *, declines: bool
) -> SignedIn:
    """Alice at the first upstream; at the second she signs in too, or says no."""
    client_id, pkce = (await world.register())["client_id"], Pkce()
    url = world.authorize_url(client_id, pkce)
    if declines:
        returning = await return_from_upstream(world, url)
        onward = (await finish(world, returning)).headers["Location"]
        query = urlencode({"state": query_of(onward)["state"], "error": "access_denied"})
        callback = f"{world.issuer}/oauth/callback/second?{query}"
        back = await finish(world, replace(returning, callback=callback))
        code = query_of(back.headers["Location"])["code"]
    else:
        async with Browser(leave_at=CALLBACK) as browser:
            consented = await browser.submit(await browser.open(url), press=("decision", "allow"))
            page = await log_in(browser, await log_in(browser, consented, "alice"), "alice")
        code = page.query["code"]
    return SignedIn(client_id, **(await world.redeem(client_id, code, pkce)).json())


async def test_an_upstream_that_was_declined_never_refuses_the_refresh(tmp_path: Path) -> None:
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
    ):
        register_us(world, first, second)
        alice = await linked(world, first, second, declines=True)
        for _ in range(2):
            assert verdict(await released(world, alice, "second")) == (400, "invalid_grant")
            alice = await refreshed(world, alice)
        assert (await released(world, alice, "first")).status == 200


async def test_an_upstream_that_was_connected_and_died_refuses_the_refresh(
    tmp_path: Path,
) -> None:
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
    ):
        register_us(world, first, second)
        alice = await linked(world, first, second, declines=False)
        end_grant(second, (await released(world, alice, "second")).json()["access_token"])
        await sql(tmp_path, "UPDATE connections SET dead = 1 WHERE upstream = 'second'")
        assert (await refreshed(world, alice)).access_token  # nobody wanted that token yet


async def test_after_a_sign_in_that_declines_a_dead_upstream_again_nobody_loops(
    tmp_path: Path,
) -> None:
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
    ):
        register_us(world, first, second)
        alice = await linked(world, first, second, declines=False)
        fingerprint = await dead_second(world, second, alice)
        refused = await released_rejected(world, alice, fingerprint)
        assert verdict(refused) == (400, "invalid_grant")
        answer = await world.refresh(alice.client_id, alice.refresh_token)
        assert verdict(answer) == (400, "invalid_grant")
        again = await linked(world, first, second, declines=True)
        assert verdict(await released_rejected(world, again, fingerprint)) == (400, "invalid_grant")
        assert (await refreshed(world, again)).access_token


async def test_a_session_uses_only_upstreams_that_its_own_authorization_named(
    tmp_path: Path,
) -> None:
    """Amendment 12: another client's consent does not widen what this client may use."""
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
    ):
        register_us(world, first, second)
        both = configured(first, second)["resources"]
        await reload(world, resources=[both[0] | {"upstreams": ["first"]}])
        before = await world.signed_in("alice")
        await reload(world, resources=both)
        after = await linked(world, first, second, declines=False)
        assert (await released(world, after, "second")).status == 200
        assert verdict(await released(world, before, "second")) == (400, "invalid_grant")
        assert (await released(world, before, "first")).status == 200
        assert (await refreshed(world, before)).access_token


async def test_an_upstream_added_to_the_resource_refuses_no_refresh(tmp_path: Path) -> None:
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
    ):
        register_us(world, first, second)
        both = configured(first, second)["resources"]
        await reload(world, resources=[both[0] | {"upstreams": ["first"]}])
        alice = await world.signed_in("alice")
        for upstreams in (["first", "second"], ["second", "first"]):
            await reload(world, resources=[both[0] | {"upstreams": upstreams}])
            assert verdict(await released(world, alice, "second")) == (400, "invalid_grant")
            alice = await refreshed(world, alice)
        assert (await released(world, alice, "first")).status == 200


async def test_an_upstream_out_of_the_configuration_is_waited_for_an_hour(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        settings = load(world.folder / "authserver.yaml")
        right = {
            "upstreams": [acme(world, "acme")],
            "resources": [notes(["acme"])],
        }
        await reload(world, upstreams=[acme(world, "acne")], resources=[notes(["acne"])])
        for seconds in (0, HOUR - 1):
            world.clock.advance(seconds)
            held = await world.refresh(alice.client_id, alice.refresh_token)
            assert verdict(held) == (503, "temporarily_unavailable")
            assert int(held.headers["Retry-After"]) > 0
        await reload(world, **right)
        alice = await refreshed(world, alice)
        await world.server.housekeeping.round()
        await reload(world, upstreams=[acme(world, "acne")], resources=[notes(["acne"])])
        world.clock.advance(1)
        held = await world.refresh(alice.client_id, alice.refresh_token)
        assert held.status == 503  # a slip of another day has an hour of its own
        world.clock.advance(HOUR)
        refused = await world.refresh(alice.client_id, alice.refresh_token)
        assert verdict(refused) == (400, "invalid_grant")
        await reload(world, **right)
        assert (await refreshed(world, alice)).access_token
        assert settings.resources  # the first configuration was a whole one


async def test_a_resource_that_left_the_map_gets_no_jwt_and_costs_no_session(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        client_id, pkce = (await world.register())["client_id"], Pkce()
        code = await world.code(client_id, pkce)
        await reload(world, resources=[notes(["acme"], TASKS, "tasks")])
        for more in ({}, {"resource": NOTES}):
            held = await world.refresh(alice.client_id, alice.refresh_token, **more)
            assert verdict(held) == (503, "temporarily_unavailable")
        held = await world.redeem(client_id, code, pkce)
        assert verdict(held) == (503, "temporarily_unavailable")
        await reload(world, resources=[notes(["acme"])])
        assert (await world.redeem(client_id, code, pkce)).status == 200
        assert (await refreshed(world, alice)).access_token


def acme(world: Deployment, name: str) -> dict[str, object]:
    return {
        "name": name,
        "type": "oidc",
        "issuer": world.upstream.issuer,
        "clientId": "tokenward",
        "clientSecretFile": "upstream-secret",
        "scopes": ["openid"],
    }


def notes(upstreams: list[str], url: str = NOTES, name: str = "notes") -> dict[str, object]:
    workload = {"namespace": "mcp-servers", "name": name}
    return {"resource": url, "workload": workload, "upstreams": upstreams, "scopes": ["mcp"]}


async def dead_second(world: Deployment, second: FakeUpstream, user: SignedIn) -> str:
    """The fingerprint of the second upstream's token, whose grant is over from now on."""
    token = (await released(world, user, "second")).json()["access_token"]
    end_grant(second, token)
    return fingerprint(token)


async def released_rejected(world: Deployment, user: SignedIn, fingerprint: str) -> Answer:
    return await world.exchange(
        NOTES_SERVER, user.access_token, audience="second", rejected_token_sha256=fingerprint
    )


def fingerprint(token: str) -> str:
    digest = hashlib.sha256(token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
