"""The token endpoint: codes, refresh tokens, client authentication, and what a token says."""

import asyncio
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from joserfc import jws
from joserfc.jwk import KeySet

from tests.support.database_file import count, sql
from tests.support.deployment import CALLBACK, NOTES, TASKS, Answer, Deployment, Pkce, deployed

DAY = 86400


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{client_id}:{secret}'.encode()).decode()}"}


def asserted(subject: str) -> dict[str, str]:
    """An assertion of a client whose id is this text of JSON; nobody signed it."""
    payload = base64.urlsafe_b64encode(f'{{"sub":"{subject}"}}'.encode()).decode().rstrip("=")
    return {
        "client_assertion": f"e30.{payload}.",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }


def refusal(answer: Answer) -> tuple[int, str]:
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status, answer.json()["error"]


async def live(world: Deployment, access_token: str) -> bool:
    """Whether the session behind a token still gets its user's upstream token."""
    return (await world.exchange("mcp-servers/notes", access_token)).status == 200


# What a token says.


async def test_an_access_token_says_what_was_promised_and_nothing_of_the_user(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        answer = await world.redeem(client_id, await world.code(client_id, pkce), pkce)
        body, now = answer.json(), int(world.clock())
        assert set(body) == {
            "access_token", "token_type", "expires_in", "scope",
            "refresh_token", "refresh_token_timeout", "authorization_expires_in",
        }  # fmt: skip
        assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 900, "mcp")
        jwks: Any = (await world.call("GET", "/.well-known/jwks.json")).json()
        signed = jws.deserialize_compact(body["access_token"], KeySet.import_key_set(jwks))
        assert signed.headers() == {
            "typ": "at+jwt",
            "alg": "ES256",
            "kid": jwks["keys"][0]["kid"],
        }
        claims = json.loads(signed.payload)
        for random in ("sub", "jti", "tsid"):
            assert len(claims.pop(random)) == 43
        assert claims == {
            "iss": world.issuer,
            "aud": NOTES,
            "client_id": client_id,
            "scope": "mcp",
            "iat": now,
            "nbf": now,
            "exp": now + 900,
        }


# Authorization codes.


async def test_a_code_is_worth_nothing_outside_its_own_request_and_is_not_used_up_by_trying(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        other_client = (await world.register())["client_id"]
        code = await world.code(client_id, pkce)
        other_code = await world.code(client_id, Pkce())
        tries: list[tuple[dict[str, str], str]] = [
            ({"code": ""}, "invalid_grant"),
            ({"code": f"{code}x"}, "invalid_grant"),
            ({"code": other_code}, "invalid_grant"),
            ({"client_id": other_client}, "invalid_grant"),
            ({"redirect_uri": f"{CALLBACK}/"}, "invalid_grant"),
            ({"redirect_uri": "http://127.0.0.1:9998/callback"}, "invalid_grant"),
            ({"code_verifier": ""}, "invalid_grant"),
            ({"code_verifier": Pkce().verifier}, "invalid_grant"),
            ({"code_verifier": pkce.challenge}, "invalid_grant"),
            ({"code_verifier": pkce.verifier + "a"}, "invalid_grant"),
            ({"resource": TASKS}, "invalid_target"),
            ({"resource": "https://unknown.example.com"}, "invalid_target"),
            ({"resource": f"{NOTES}#fragment"}, "invalid_target"),
            ({"grant_type": ""}, "invalid_request"),
            ({"grant_type": "password"}, "unsupported_grant_type"),
            ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
            ({"grant_type": "implicit"}, "unsupported_grant_type"),
            (
                {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"},
                "unsupported_grant_type",
            ),
        ]
        for changes, error in tries:
            refused = await world.redeem(client_id, code, pkce, **changes)
            assert refusal(refused) == (400, error), changes
        assert (await world.redeem(client_id, code, pkce, resource=f"{NOTES}/")).status == 200


async def test_a_verifier_outside_its_alphabet_or_length_is_refused_even_if_it_hashes_right(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        for verifier in ("a" * 42, "a" * 129, "a" * 43 + "+", "ä" * 43, "a" * 43 + "\n"):
            pkce = Pkce(verifier)
            code = await world.code(client_id, pkce)
            assert refusal(await world.redeem(client_id, code, pkce)) == (400, "invalid_grant")
        for verifier in ("a" * 43, "a-._~" + "b" * 123):
            pkce = Pkce(verifier)
            code = await world.code(client_id, pkce)
            assert (await world.redeem(client_id, code, pkce)).status == 200


async def test_a_code_lasts_a_minute(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        early, late = [await world.code(client_id, pkce) for _ in range(2)]
        world.clock.advance(59)
        assert (await world.redeem(client_id, early, pkce)).status == 200
        world.clock.advance(1)
        assert refusal(await world.redeem(client_id, late, pkce)) == (400, "invalid_grant")


async def test_a_reused_code_is_refused_and_its_session_ended(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        code = await world.code(client_id, pkce)
        tokens = (await world.redeem(client_id, code, pkce)).json()
        # Whoever has the code but not the verifier cannot end the session with it.
        stolen = await world.redeem(client_id, code, Pkce())
        assert refusal(stolen) == (400, "invalid_grant")
        assert await live(world, tokens["access_token"])
        world.clock.advance(3600)
        assert refusal(await world.redeem(client_id, code, pkce)) == (400, "invalid_grant")
        assert await count(tmp_path, "connections") == 0
        world.clock.advance(-3600)
        assert not await live(world, tokens["access_token"])
        refused = await world.refresh(client_id, tokens["refresh_token"])
        assert refusal(refused) == (400, "invalid_grant")


async def test_of_many_racing_redemptions_exactly_one_succeeds(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        code = await world.code(client_id, pkce)
        answers = await asyncio.gather(*(world.redeem(client_id, code, pkce) for _ in range(20)))
        (won,) = (answer for answer in answers if answer.status == 200)
        assert {refusal(answer) for answer in answers if answer is not won} == {
            (400, "invalid_grant")
        }
        assert not await live(world, won.json()["access_token"])


async def test_a_code_and_a_session_stay_with_their_client(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        mine, theirs = [(await world.register())["client_id"] for _ in range(2)]
        pkce, other = Pkce(), Pkce()
        codes = await world.code(mine, pkce), await world.code(theirs, other, "bob")
        assert refusal(await world.redeem(mine, codes[1], pkce)) == (400, "invalid_grant")
        assert refusal(await world.redeem(theirs, codes[0], other)) == (400, "invalid_grant")


# Client authentication.


async def test_a_client_authenticates_by_the_method_it_registered_and_by_no_other(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        for method in ("none", "client_secret_post", "client_secret_basic"):
            client = await world.register(token_endpoint_auth_method=method)
            client_id, secret = client["client_id"], client.get("client_secret", "made-up")
            ways: dict[str, tuple[dict[str, str], dict[str, str]]] = {
                "none": ({"client_id": client_id}, {}),
                "client_secret_post": ({"client_id": client_id, "client_secret": secret}, {}),
                "client_secret_basic": ({}, basic(client_id, secret)),
            }
            for way, (fields, headers) in ways.items():
                answer = await _refresh_of_nothing(world, fields, headers)
                assert refusal(answer) == (
                    (400, "invalid_grant") if way == method else (401, "invalid_client")
                ), (method, way)


async def test_a_wrong_client_gets_401_and_a_challenge_where_it_used_basic(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client = await world.register(token_endpoint_auth_method="client_secret_basic")
        client_id, secret = client["client_id"], client["client_secret"]
        wrong = [
            basic(client_id, f"{secret}x"),
            basic(client_id, ""),
            basic("tw-unknown", secret),
            basic("", secret),
            basic("a\0b", secret),
            basic("a%00b", secret),
            {"Authorization": f"Bearer {secret}"},
            {"Authorization": basic(client_id, secret)["Authorization"].replace("Basic", "Bearer")},
            {"Authorization": "Basic"},
            {"Authorization": "Basic !!!"},
            {"Authorization": "Basic ü"},
            {"Authorization": f"Basic {base64.b64encode(b'no-colon').decode()}"},
            {"Authorization": f"Basic {base64.b64encode(bytes(range(128, 255))).decode()}"},
        ]
        for headers in wrong:
            answer = await _refresh_of_nothing(world, {}, headers)
            assert refusal(answer) == (401, "invalid_client"), headers
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="tokenward"', headers
        for fields in (
            {},
            {"client_id": "tw-unknown"},
            {"client_secret": secret},
            asserted(r"a\u0000b"),
            asserted(r"a\ud800b"),
        ):
            answer = await _refresh_of_nothing(world, fields, {})
            assert refusal(answer) == (401, "invalid_client"), fields
            assert "WWW-Authenticate" not in answer.headers


async def test_two_ways_of_authenticating_at_once_are_refused(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client = await world.register(token_endpoint_auth_method="client_secret_basic")
        client_id, secret = client["client_id"], client["client_secret"]
        headers = basic(client_id, secret)
        for fields in ({"client_secret": secret}, {"client_id": "tw-another"}):
            answer = await _refresh_of_nothing(world, fields, headers)
            assert refusal(answer) == (400, "invalid_request"), fields
        # The official Python client repeats its id in the body beside the header.
        answer = await _refresh_of_nothing(world, {"client_id": client_id}, headers)
        assert refusal(answer) == (400, "invalid_grant")


async def test_basic_credentials_are_taken_raw_and_form_encoded(tmp_path: Path) -> None:
    secret = "a+b c%41/ü:"
    (tmp_path / "portal-secret").write_text(f"{secret}\n")
    portal = {
        "clientId": "the portal+1",
        "redirectUris": [CALLBACK],
        "clientSecretFile": "portal-secret",
    }
    async with deployed(tmp_path, clients={"static": [portal]}) as world:
        for client_id, sent in (
            ("the portal+1", secret),
            ("the+portal%2B1", "a%2Bb+c%2541%2F%C3%BC%3A"),
            ("the%20portal%2B1", "a%2Bb%20c%2541%2F%C3%BC%3A"),
        ):
            answer = await _refresh_of_nothing(world, {}, basic(client_id, sent))
            assert refusal(answer) == (400, "invalid_grant"), sent
        answer = await _refresh_of_nothing(world, {}, basic("the portal+1", "a+b cA/ü:"))
        assert refusal(answer) == (401, "invalid_client")


async def _refresh_of_nothing(
    world: Deployment, fields: Mapping[str, str], headers: Mapping[str, str]
) -> Answer:
    """invalid_grant means that the client itself was accepted."""
    asked = {"grant_type": "refresh_token", "refresh_token": "nothing"}
    return await world.call("POST", "/oauth/token", data=asked | dict(fields), headers=headers)


# Refresh tokens.


async def test_a_refresh_without_scope_keeps_scope_and_audience(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp offline_access")
        answer = await world.refresh(alice.client_id, alice.refresh_token)
        body = answer.json()
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert body["scope"] == "mcp offline_access"
        assert body["refresh_token"] != alice.refresh_token
        before, after = claims_of(alice.access_token), claims_of(body["access_token"])
        same = ("iss", "sub", "aud", "client_id", "scope", "tsid")
        assert [before[name] for name in same] == [after[name] for name in same]
        assert before["jti"] != after["jti"]


async def test_a_refused_refresh_does_not_cost_the_session(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        for changes, error in (
            ({"scope": "mcp offline_access"}, "invalid_scope"),
            ({"scope": "admin"}, "invalid_scope"),
            ({"resource": TASKS}, "invalid_target"),
            ({"resource": "https://unknown.example.com"}, "invalid_target"),
        ):
            refused = await world.refresh(alice.client_id, alice.refresh_token, **changes)
            assert refusal(refused) == (400, error), changes
        answer = await world.refresh(
            alice.client_id, alice.refresh_token, resource=f"{NOTES}/", scope="mcp"
        )
        assert answer.status == 200


async def test_a_refresh_for_less_scope_gets_a_token_with_less(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp offline_access")
        less = (await world.refresh(alice.client_id, alice.refresh_token, scope="mcp")).json()
        assert less["scope"] == claims_of(less["access_token"])["scope"] == "mcp"
        # The grant itself stays as wide as the user allowed (RFC 6749 section 6).
        again = (await world.refresh(alice.client_id, less["refresh_token"])).json()
        assert again["scope"] == "mcp offline_access"


async def test_racing_refreshes_converge_on_one_successor(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        answers = await asyncio.gather(
            *(world.refresh(alice.client_id, alice.refresh_token) for _ in range(10))
        )
        (successor,) = {answer.json()["refresh_token"] for answer in answers}
        assert (await world.refresh(alice.client_id, successor)).status == 200


async def test_a_lost_answer_is_repeated_for_half_a_minute_and_is_theft_after_that(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        first = (await world.refresh(alice.client_id, alice.refresh_token)).json()
        world.clock.advance(30)
        again = (await world.refresh(alice.client_id, alice.refresh_token)).json()
        assert again["refresh_token"] == first["refresh_token"]
        world.clock.advance(1)
        refused = await world.refresh(alice.client_id, alice.refresh_token)
        assert refusal(refused) == (400, "invalid_grant")
        assert not await live(world, first["access_token"])
        refused = await world.refresh(alice.client_id, first["refresh_token"])
        assert refusal(refused) == (400, "invalid_grant")


async def test_a_refresh_token_reused_after_its_successor_was_used_ends_the_session(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        first = (await world.refresh(alice.client_id, alice.refresh_token)).json()
        second = (await world.refresh(alice.client_id, first["refresh_token"])).json()
        assert await live(world, second["access_token"])
        refused = await world.refresh(alice.client_id, alice.refresh_token)
        assert refusal(refused) == (400, "invalid_grant")
        assert await count(tmp_path, "connections") == 0
        assert not await live(world, second["access_token"])
        refused = await world.refresh(alice.client_id, second["refresh_token"])
        assert refusal(refused) == (400, "invalid_grant")


async def test_a_refresh_token_at_another_client_ends_the_session(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        thief = (await world.register())["client_id"]
        refused = await world.refresh(thief, alice.refresh_token)
        assert refusal(refused) == (400, "invalid_grant")
        assert await count(tmp_path, "connections") == 0
        assert not await live(world, alice.access_token)


async def test_what_is_no_refresh_token_is_refused(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        for made_up in ("", "x", alice.access_token, f"{alice.refresh_token}x"):
            refused = await world.refresh(alice.client_id, made_up)
            assert refusal(refused) == (400, "invalid_grant")
        assert await live(world, alice.access_token)


async def test_a_session_ends_when_it_was_idle_too_long(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        world.clock.advance(30 * DAY - 1)
        kept = await world.refresh(alice.client_id, alice.refresh_token)
        assert kept.status == 200
        world.clock.advance(30 * DAY)
        refused = await world.refresh(alice.client_id, kept.json()["refresh_token"])
        assert refusal(refused) == (400, "invalid_grant")


async def test_a_session_ends_in_the_end_however_busy_it_is(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        token = alice.refresh_token
        for _ in range(4):
            world.clock.advance(20 * DAY)
            token = (await world.refresh(alice.client_id, token)).json()["refresh_token"]
        world.clock.advance(10 * DAY)
        refused = await world.refresh(alice.client_id, token)
        assert refusal(refused) == (400, "invalid_grant")


async def test_a_client_that_did_not_register_for_refreshing_gets_no_refresh_token(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client = await world.register(grant_types=["authorization_code"])
        pkce = Pkce()
        code = await world.code(client["client_id"], pkce, scope="mcp")
        answer = await world.redeem(client["client_id"], code, pkce)
        assert answer.status == 200
        assert "refresh_token" not in answer.json()


@pytest.mark.parametrize("grant_types", [None, ["authorization_code"]])
async def test_whoever_asks_for_offline_access_gets_a_refresh_token(
    tmp_path: Path, grant_types: list[str] | None
) -> None:
    async with deployed(tmp_path) as world:
        metadata: dict[str, object] = {"client_name": "Minimal", "redirect_uris": [CALLBACK]}
        metadata["token_endpoint_auth_method"] = "none"
        if grant_types is not None:
            metadata["grant_types"] = grant_types
        client = (await world.call("POST", "/oauth/register", json=metadata)).json()
        pkce = Pkce()
        code = await world.code(client["client_id"], pkce, scope="mcp offline_access")
        answer = (await world.redeem(client["client_id"], code, pkce)).json()
        assert "offline_access" in answer["scope"].split()
        refreshed = await world.refresh(client["client_id"], answer["refresh_token"])
        assert refreshed.status == 200


async def test_a_code_is_redeemed_without_a_redirect_uri_and_never_with_another(
    tmp_path: Path,
) -> None:
    """OAuth 2.1 has no such parameter here; PKCE binds the request, and the next test shows it."""
    async with deployed(tmp_path) as world:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        fields = {"grant_type": "authorization_code", "client_id": client_id}
        fields["code"] = await world.code(client_id, pkce)
        wrong = await world.token(**fields, code_verifier=pkce.verifier, redirect_uri="http://x")
        assert refusal(wrong) == (400, "invalid_grant")
        unproven = await world.token(**fields, code_verifier=Pkce().verifier)
        assert refusal(unproven) == (400, "invalid_grant")
        assert (await world.token(**fields, code_verifier=pkce.verifier)).status == 200


async def test_a_public_client_may_send_basic_with_an_empty_secret(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        public = await world.register()
        confidential = await world.register(token_endpoint_auth_method="client_secret_basic")
        pkce = Pkce()
        code = await world.code(public["client_id"], pkce)
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": pkce.verifier,
        }
        for client_id, secret, status in (
            (confidential["client_id"], "", 401),
            (public["client_id"], "guess", 401),
            (public["client_id"], "", 200),
        ):
            pair = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
            answer = await world.call(
                "POST", "/oauth/token", data=fields, headers={"Authorization": f"Basic {pair}"}
            )
            assert answer.status == status, answer.text
            assert ("WWW-Authenticate" in answer.headers) == (status == 401)


async def test_the_same_resource_twice_is_one_resource_and_two_are_refused(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in()
        fields = [
            ("grant_type", "refresh_token"),
            ("client_id", alice.client_id),
            ("refresh_token", alice.refresh_token),
            ("resource", NOTES),
        ]
        other = await world.call("POST", "/oauth/token", data=[*fields, ("resource", TASKS)])
        assert refusal(other) == (400, "invalid_target")
        twice = await world.call("POST", "/oauth/token", data=[*fields, fields[1]])
        assert refusal(twice) == (400, "invalid_request")
        same = await world.call("POST", "/oauth/token", data=[*fields, fields[-1]])
        assert same.status == 200
        url = f"{world.authorize_url(alice.client_id, Pkce())}&resource={quote(NOTES, safe='')}"
        assert (await world.call("GET", url)).status == 200


async def test_storage_that_fails_is_temporary_and_recovers_without_a_restart(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        await sql(tmp_path, "ALTER TABLE refresh_tokens RENAME TO gone")
        failed = await world.refresh(alice.client_id, alice.refresh_token)
        assert refusal(failed) == (503, "temporarily_unavailable")
        assert int(failed.headers["Retry-After"]) > 0
        await sql(tmp_path, "ALTER TABLE gone RENAME TO refresh_tokens")
        assert (await world.refresh(alice.client_id, alice.refresh_token)).status == 200


async def test_refreshing_here_never_asks_the_upstream(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        world.upstream.grants.counts.clear()  # a refresh there would now fail
        answer = await world.refresh(alice.client_id, alice.refresh_token)
        assert answer.status == 200


def claims_of(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert isinstance(claims, dict)
    return claims
