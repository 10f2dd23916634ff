"""Dynamic registration: open to real clients, closed to everything that could hurt a user."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.database_file import count
from tests.support.deployment import CALLBACK, Pkce, deployed

DAY = 86400


async def test_a_minimal_registration_gets_every_default_and_no_null(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        answer = await world.call("POST", "/oauth/register", json={"redirect_uris": [CALLBACK]})
        assert answer.status == 201
        assert answer.headers["Cache-Control"] == "no-store"
        found = answer.json()
        assert None not in found.values()
        assert found.pop("client_id").startswith("tw-")
        assert found.pop("client_name").startswith("tw-")
        assert len(found.pop("client_secret")) >= 43
        assert found == {
            "client_id_issued_at": int(world.clock()),
            "client_secret_expires_at": 0,
            "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_basic",
            "application_type": "web",
        }


async def test_registrations_of_real_clients_are_taken_as_they_are(tmp_path: Path) -> None:
    cursor = [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
    ]
    async with deployed(tmp_path) as world:
        found = await world.register(
            client_name="Cursor",
            redirect_uris=cursor,
            application_type="native",
            response_types=["code"],
            scope="mcp openid made-up offline_access",
            client_uri="https://cursor.com",
            logo_uri="https://cursor.com/logo.png",
            contacts=["someone@example.com"],
            software_id="a",
            never_heard_of={"a": [1]},
        )
        assert found["redirect_uris"] == cursor
        assert found["application_type"] == "native"
        assert found["client_name"] == "Cursor"
        assert "client_secret" not in found
        assert "client_secret_expires_at" not in found


async def test_a_client_cannot_choose_its_own_identity(tmp_path: Path) -> None:
    asked = {"client_id": "https://claude.ai/x", "client_secret": "mine", "client_id_issued_at": 1}
    async with deployed(tmp_path) as world:
        found = await world.register(token_endpoint_auth_method="client_secret_post", **asked)
        other = await world.register(token_endpoint_auth_method="client_secret_post", **asked)
        for name, value in asked.items():
            assert found[name] != value
        assert found["client_id"] != other["client_id"]
        assert found["client_secret"] != other["client_secret"]


BAD_REDIRECT_URIS: list[dict[str, Any]] = [
    {},
    {"redirect_uris": []},
    {"redirect_uris": CALLBACK},
    {"redirect_uris": None},
    {"redirect_uris": [1]},
    {"redirect_uris": ["http://evil.example/cb", "http://chat:3080/cb"]},
    {"redirect_uris": [CALLBACK, 1]},
    {"redirect_uris": ["javascript:alert(1)"]},
    {"redirect_uris": [f"{CALLBACK}/{n}" for n in range(11)]},
]
BAD_METADATA: list[dict[str, Any]] = [
    {"token_endpoint_auth_method": "private_key_jwt"},
    {"token_endpoint_auth_method": "tls_client_auth"},
    {"token_endpoint_auth_method": ["none"]},
    {"token_endpoint_auth_method": None},
    {"grant_types": ["implicit"]},
    {"grant_types": ["password"]},
    {"grant_types": []},
    {"grant_types": "authorization_code"},
    {"grant_types": {"authorization_code": 1}},
    {"response_types": ["token"]},
    {"response_types": ["code", "code token"]},
    {"response_types": 1},
    {"client_name": 1},
    {"client_uri": "javascript:alert(1)"},
    {"contacts": 1},
]


@pytest.mark.parametrize(
    ("refused", "error"),
    [(BAD_REDIRECT_URIS, "invalid_redirect_uri"), (BAD_METADATA, "invalid_client_metadata")],
    ids=["redirect_uris", "other members"],
)
async def test_unacceptable_metadata_registers_nothing(
    tmp_path: Path, refused: list[dict[str, Any]], error: str
) -> None:
    base = {} if refused is BAD_REDIRECT_URIS else {"redirect_uris": [CALLBACK]}
    async with deployed(tmp_path) as world:
        for metadata in refused:
            answer = await world.call("POST", "/oauth/register", json=base | metadata)
            assert (answer.status, answer.json().get("error")) == (400, error), metadata
        assert await count(tmp_path, "clients") == 0


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"redirect_uris": ["http://chat:3080/cb"]}, "redirect_uris[0]"),
        ({"redirect_uris": ["https://a.example/cb#x", "ftp://x/"]}, "redirect_uris[0]"),
        ({"redirect_uris": [CALLBACK, None]}, "redirect_uris[1]"),
        ({"redirect_uris": "x"}, "redirect_uris"),
        ({"logo_uri": "not a uri"}, "logo_uri"),
        ({"tos_uri": "javascript:alert(1)"}, "tos_uri"),
        ({"policy_uri": 5}, "policy_uri"),
        ({"client_uri": "x"}, "client_uri"),
        ({"contacts": "alice"}, "contacts"),
        ({"response_types": ["token"]}, "response_types"),
        ({"grant_types": ["implicit"]}, "grant_types"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "token_endpoint_auth_method"),
        ({"client_name": 7}, "client_name"),
    ],
    ids=str,
)
async def test_a_refusal_names_the_member_and_repeats_no_value(
    tmp_path: Path, metadata: dict[str, Any], named: str
) -> None:
    async with deployed(tmp_path) as world:
        body = {"redirect_uris": [CALLBACK]} | metadata
        answer = await world.call("POST", "/oauth/register", json=body)
        assert answer.status == 400
        assert named in answer.json()["error_description"]
        assert "chat:3080" not in answer.text
        assert "alert" not in answer.text


async def test_a_redirect_uri_that_cannot_be_used_costs_only_itself(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        good = "https://chat.example.com/cb"
        found = await world.register(redirect_uris=["http://chat:3080/cb", good])
        assert found["redirect_uris"] == [good], "the response says what was registered"
        url = world.authorize_url(found["client_id"], Pkce(), redirect_uri="http://chat:3080/cb")
        answer = await world.call("GET", url)
        assert (answer.status, answer.headers.get("Location")) == (400, None)


async def test_only_grants_that_exist_here_are_registered_and_reported(tmp_path: Path) -> None:
    asked = ["implicit", "refresh_token", "authorization_code", "password"]
    async with deployed(tmp_path) as world:
        found = await world.register(grant_types=asked)
        assert found["grant_types"] == ["authorization_code", "refresh_token"]


async def test_ten_redirect_uris_are_the_most(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        ten = [f"{CALLBACK}/{n}" for n in range(10)]
        assert (await world.register(redirect_uris=ten))["redirect_uris"] == ten


async def test_a_source_that_registers_too_often_is_held_back_for_a_while(tmp_path: Path) -> None:
    limits = {"registrationsPerSourcePerMinute": 3}
    async with deployed(tmp_path, limits=limits) as world:
        for _ in range(3):
            await world.register()
        refused = await world.call("POST", "/oauth/register", json={"redirect_uris": [CALLBACK]})
        assert refused.status == 429
        wait = int(refused.headers["Retry-After"])
        assert 0 < wait <= 60
        assert await count(tmp_path, "clients") == 3
        world.clock.advance(wait)
        await world.register()


async def test_a_client_that_never_got_a_token_is_forgotten_after_a_day(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        url = world.authorize_url(client_id, Pkce())
        world.clock.advance(DAY - 1)
        assert (await world.call("GET", url)).status == 200
        world.clock.advance(1)
        refused = await world.call("GET", url)
        assert refused.status == 400
        assert "not registered" in refused.text
        await world.server.housekeeping.sweep()
        assert await count(tmp_path, "clients") == 0


async def test_a_client_that_got_a_token_is_never_forgotten(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        world.clock.advance(1000 * DAY)
        await world.server.housekeeping.sweep()
        answer = await world.call("GET", world.authorize_url(alice.client_id, Pkce()))
        assert answer.status == 200


async def test_registered_secrets_are_not_in_the_database(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        found = await world.register(token_endpoint_auth_method="client_secret_basic")
        assert found["client_id"].encode() in world.stored_bytes()
        assert found["client_secret"].encode() not in world.stored_bytes()
