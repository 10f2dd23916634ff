"""Revocation: a 200 means that it happened, and it reaches as far as the session does."""

from pathlib import Path

from tests.fakes.upstream import HostileUpstream
from tests.support.database_file import count, sql
from tests.support.deployment import Answer, Deployment, deployed


async def revoke(world: Deployment, **fields: str) -> Answer:
    return await world.call("POST", "/oauth/revoke", data=fields)


async def live(world: Deployment, access_token: str) -> bool:
    return (await world.exchange("mcp-servers/notes", access_token)).status == 200


async def test_revoking_either_token_ends_the_session_everywhere(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        for kind in ("refresh_token", "access_token"):
            alice = await world.signed_in("alice")
            assert await live(world, alice.access_token)
            answer = await revoke(world, client_id=alice.client_id, token=getattr(alice, kind))
            assert (answer.status, answer.text) == (200, "")
            assert not await live(world, alice.access_token)
            refused = await world.refresh(alice.client_id, alice.refresh_token)
            assert refused.json()["error"] == "invalid_grant"
            again = await revoke(world, client_id=alice.client_id, token=getattr(alice, kind))
            assert again.status == 200


async def test_the_last_session_takes_the_upstream_tokens_along(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        first, second = [await world.signed_in("alice") for _ in range(2)]
        released = await world.exchange("mcp-servers/notes", second.access_token)
        upstream_token = released.json()["access_token"]
        await revoke(world, client_id=first.client_id, token=first.refresh_token)
        assert await count(tmp_path, "connections") == 1
        assert await live(world, second.access_token)
        await revoke(world, client_id=second.client_id, token=second.refresh_token)
        assert await count(tmp_path, "connections") == 0
        await world.server.drain()
        headers = {"Authorization": f"Bearer {upstream_token}"}
        user = await world.call("GET", f"{world.upstream.issuer}/api/user", headers=headers)
        assert user.status == 401


async def test_what_ends_the_grant_is_revoked_upstream(tmp_path: Path) -> None:
    async with HostileUpstream().serve() as upstream:
        async with deployed(tmp_path, upstreams=upstream.configuration) as world:
            user = await world.signed_in()
            await revoke(world, client_id=user.client_id, token=user.access_token)
        assert upstream.revoked == ["refresh-1"]


async def test_a_token_of_another_client_or_of_nobody_changes_nothing(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
        header, payload, signature = alice.access_token.split(".")
        for token in (
            alice.refresh_token,
            alice.access_token,
            "unknown",
            "un.known",
            "a.b.c",
            f"{header}.{payload}.",
            f"{header}.{payload}.{signature[::-1]}",
        ):
            answer = await revoke(world, client_id=bob.client_id, token=token)
            assert answer.status == 200, token
        forged = f"{header}.{payload}.{signature[::-1]}"
        assert (await revoke(world, client_id=alice.client_id, token=forged)).status == 200
        assert await live(world, alice.access_token)
        assert await live(world, bob.access_token)


async def test_only_a_client_that_is_itself_may_ask_and_must_say_what_for(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        secretive = await world.register(token_endpoint_auth_method="client_secret_post")
        for fields, status, error in (
            ({"token": alice.refresh_token}, 401, "invalid_client"),
            ({"token": alice.refresh_token, "client_id": "tw-unknown"}, 401, "invalid_client"),
            ({"token": "x", "client_id": secretive["client_id"]}, 401, "invalid_client"),
            ({"client_id": alice.client_id}, 400, "invalid_request"),
        ):
            answer = await revoke(world, **fields)
            assert (answer.status, answer.json()["error"]) == (status, error)
        assert await live(world, alice.access_token)


async def test_a_revocation_that_could_not_be_recorded_does_not_claim_to_be(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        await sql(
            tmp_path,
            "CREATE TRIGGER full BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, 'full'); END",
        )
        failed = await revoke(world, client_id=alice.client_id, token=alice.refresh_token)
        assert (failed.status, failed.json()["error"]) == (503, "temporarily_unavailable")
        assert int(failed.headers["Retry-After"]) > 0
        assert await live(world, alice.access_token)
        await sql(tmp_path, "DROP TRIGGER full")
        done = await revoke(world, client_id=alice.client_id, token=alice.refresh_token)
        assert done.status == 200
        assert not await live(world, alice.access_token)
