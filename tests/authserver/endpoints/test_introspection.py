"""Introspection (RFC 7662): a client may ask about its own tokens, and learns of others nothing."""

from pathlib import Path

from tests.support.deployment import NOTES, Answer, Deployment, Pkce, deployed
from tests.support.forged_tokens import claims_of


async def confidential(world: Deployment) -> tuple[str, str]:
    client = await world.register(token_endpoint_auth_method="client_secret_post")
    return client["client_id"], client["client_secret"]


async def signed_in(world: Deployment, client_id: str, secret: str) -> dict[str, str]:
    pkce = Pkce()
    code = await world.code(client_id, pkce)
    answer = await world.redeem(client_id, code, pkce, client_secret=secret)
    assert answer.status == 200, answer.text
    return {str(name): str(value) for name, value in answer.json().items()}


async def ask(world: Deployment, client_id: str, secret: str, token: str) -> Answer:
    fields = {"client_id": client_id, "client_secret": secret, "token": token}
    return await world.call("POST", "/oauth/introspect", data=fields)


async def test_a_client_learns_what_its_token_carries(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        who = await confidential(world)
        tokens = await signed_in(world, *who)
        answer = (await ask(world, *who, tokens["access_token"])).json()
        claims = claims_of(tokens["access_token"])
        assert answer == {
            "active": True,
            "token_type": "Bearer",
            "aud": NOTES,
            **{
                name: claims[name]
                for name in ["iss", "sub", "client_id", "scope", "exp", "iat", "nbf", "jti"]
            },
        }
        refresh = (await ask(world, *who, tokens["refresh_token"])).json()
        assert (refresh["active"], refresh["client_id"]) == (True, who[0])


async def test_what_is_over_is_inactive_and_says_nothing_else(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        who = await confidential(world)
        tokens = await signed_in(world, *who)
        refreshed = await world.refresh(who[0], tokens["refresh_token"], client_secret=who[1])
        for token in (tokens["refresh_token"], "x", "x.y.z", tokens["access_token"] + "x"):
            assert (await ask(world, *who, token)).json() == {"active": False}
        fields = {"client_id": who[0], "client_secret": who[1]}
        newest = refreshed.json()["refresh_token"]
        await world.call("POST", "/oauth/revoke", data=fields | {"token": newest})
        for token in (newest, tokens["access_token"], refreshed.json()["access_token"]):
            assert (await ask(world, *who, token)).json() == {"active": False}


async def test_an_expired_token_is_inactive(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        who = await confidential(world)
        tokens = await signed_in(world, *who)
        world.clock.advance(16 * 60)
        assert (await ask(world, *who, tokens["access_token"])).json() == {"active": False}
        assert (await ask(world, *who, tokens["refresh_token"])).json()["active"] is True


async def test_a_token_of_another_client_is_inactive(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        owner, other = await confidential(world), await confidential(world)
        tokens = await signed_in(world, *owner)
        for token in (tokens["access_token"], tokens["refresh_token"]):
            assert (await ask(world, *other, token)).json() == {"active": False}


async def test_only_clients_that_prove_themselves_may_ask(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        fields = {"client_id": alice.client_id, "token": alice.access_token}
        public = await world.call("POST", "/oauth/introspect", data=fields)
        assert (public.status, public.json()["error"]) == (401, "invalid_client")
        client_id, secret = await confidential(world)
        for answer in (
            await ask(world, client_id, "guess", alice.access_token),
            await ask(world, "nobody", secret, alice.access_token),
            await world.call("POST", "/oauth/introspect", data={"token": alice.access_token}),
        ):
            assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
        fields = {"client_id": client_id, "client_secret": secret}
        missing = await world.call("POST", "/oauth/introspect", data=fields)
        assert (missing.status, missing.json()["error"]) == (400, "invalid_request")
        assert "Access-Control-Allow-Origin" not in missing.headers
