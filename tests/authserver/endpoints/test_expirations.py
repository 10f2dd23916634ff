"""Both ends of a refresh token in our answers (draft-ietf-oauth-refresh-token-expiration)."""

from pathlib import Path
from typing import Any

from tests.support.deployment import Deployment, Pkce, SignedIn, deployed

DAY = 86400
IDLE, ABSOLUTE = 30 * DAY, 90 * DAY


async def refreshed(world: Deployment, user: SignedIn, token: str) -> dict[str, Any]:
    answer = await world.refresh(user.client_id, token)
    assert answer.status == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ends(body: dict[str, Any]) -> tuple[int, int]:
    return body["refresh_token_timeout"], body["authorization_expires_in"]


async def test_a_sign_in_and_each_refresh_tell_both_ends(tmp_path: Path) -> None:
    """The draft's own example: the timeout begins anew, the authorization goes on to its end."""
    async with deployed(tmp_path) as world:
        user = await world.signed_in("alice")
        assert (user.refresh_token_timeout, user.authorization_expires_in) == (IDLE, ABSOLUTE)
        token = user.refresh_token
        for days, expected in (
            (20, (IDLE, 70 * DAY)),
            (29, (IDLE, 41 * DAY)),
            (26, (15 * DAY,) * 2),
        ):
            world.clock.advance(days * DAY)
            body = await refreshed(world, user, token)
            assert ends(body) == expected
            token = body["refresh_token"]


async def test_a_refresh_token_works_until_its_timeout_and_not_after(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
        world.clock.advance(alice.refresh_token_timeout - 1)
        await refreshed(world, alice, alice.refresh_token)
        world.clock.advance(1)
        refused = await world.refresh(bob.client_id, bob.refresh_token)
        assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")


async def test_a_repeated_answer_tells_what_is_left_of_the_same_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        user = await world.signed_in("alice")
        first = await refreshed(world, user, user.refresh_token)
        world.clock.advance(20)
        again = await refreshed(world, user, user.refresh_token)
        assert again["refresh_token"] == first["refresh_token"]
        assert ends(again) == (IDLE - 20, ABSOLUTE - 20)


async def test_an_answer_without_a_refresh_token_tells_no_end(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register(grant_types=["authorization_code"]))["client_id"]
        pkce = Pkce()
        code = await world.code(client_id, pkce, scope="mcp")
        body = (await world.redeem(client_id, code, pkce)).json()
        assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
