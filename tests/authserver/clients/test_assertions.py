"""Clients that prove themselves with signed assertions (threat A63)."""

import asyncio
import json
import re
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from authlib.oauth2.auth import ClientAuth
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.fakes.web_site import WebSite, web_site
from tests.support.deployment import CALLBACK, Answer, Deployment, Pkce, deployed
from tests.support.replicas import second_replica

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KEY = ECKey.generate_key("P-256", auto_kid=True)
OTHER_KEY = ECKey.generate_key("P-256", auto_kid=True)


def jwks(*keys: ECKey | RSAKey) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys or (KEY,)]}


def assertion(
    world: Deployment,
    client_id: str,
    key: ECKey | RSAKey | OctKey = KEY,
    header: dict[str, Any] | None = None,
    **changes: object,
) -> str:
    """A good assertion; a change to None leaves the claim out."""
    now = int(world.clock())
    claims: dict[str, object] = {
        "iss": client_id,
        "sub": client_id,
        "aud": world.issuer,
        "iat": now,
        "exp": now + 60,
        "jti": secrets.token_hex(8),
    }
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    head = {"alg": "ES256", "kid": key.kid} | (header or {})
    return jws.serialize_compact(
        head, json.dumps(claims), key, algorithms=["ES256", "RS256", "HS256"]
    )


async def registered(world: Deployment, **keys: object) -> str:
    keys = keys or {"jwks": jwks()}
    client = await world.register(token_endpoint_auth_method="private_key_jwt", **keys)
    assert "client_secret" not in client
    return str(client["client_id"])


async def proven(world: Deployment, unverified: str, **fields: str) -> Answer:
    """A request whose only open question is who asks: a refresh token that does not exist."""
    asked = {
        "grant_type": "refresh_token",
        "refresh_token": "none",
        "client_assertion_type": ASSERTION,
        "client_assertion": unverified,
    }
    return await world.token(**(asked | fields))


def accepted(answer: Answer) -> bool:
    """Whether the client was believed: what is refused then is its refresh token."""
    assert answer.status in (400, 401), answer.text
    return bool(answer.json()["error"] == "invalid_grant")


async def test_a_client_signs_in_and_refreshes_with_assertions(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id, pkce = await registered(world), Pkce()
        code = await world.code(client_id, pkce)
        tokens = await world.token(
            grant_type="authorization_code",
            code=code,
            redirect_uri=CALLBACK,
            code_verifier=pkce.verifier,
            client_assertion_type=ASSERTION,
            client_assertion=assertion(world, client_id),
        )
        assert tokens.status == 200, tokens.text
        refreshed = await proven(
            world, assertion(world, client_id), refresh_token=tokens.json()["refresh_token"]
        )
        assert refreshed.status == 200, refreshed.text


async def test_the_documented_authlib_client_is_believed_each_time(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/reference/clients.md").read_text()
    (snippet,) = re.findall(r"^```python authlib\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    async with deployed(tmp_path) as world:
        client_id = await registered(world)
        names: dict[str, Any] = {"ISSUER": world.issuer}
        exec(snippet, names)
        method = names["ShortAssertion"]()
        authentication = ClientAuth(client_id, client_secret=KEY, auth_method=method)
        for _ in range(2):
            _, _, body = authentication.prepare("POST", f"{world.issuer}/oauth/token", {}, "")
            answer = await proven(world, dict(parse_qsl(body))["client_assertion"])
            assert accepted(answer), answer.text


async def test_an_assertion_counts_once_on_all_replicas(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = await registered(world)
        unverified = assertion(world, client_id)
        answers = await asyncio.gather(*(proven(world, unverified) for _ in range(10)))
        assert sum(map(accepted, answers)) == 1
        async with second_replica(world) as second:
            assert not accepted(await proven(second, unverified))


async def test_the_same_jti_of_two_clients_counts_once_each(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        for client_id in (await registered(world), await registered(world)):
            assert accepted(await proven(world, assertion(world, client_id, jti="one")))
            assert not accepted(await proven(world, assertion(world, client_id, jti="one")))


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "audience is the token URL": {"aud": "/oauth/token"},
    "audience is a list": {"aud": ["the issuer"]},
    "no audience": {"aud": None},
    "no jti": {"jti": None},
    "empty jti": {"jti": ""},
    "jti is a number": {"jti": 7},
    "other issuer": {"iss": "somebody"},
    "no issuer": {"iss": None},
    "no expiry": {"exp": None},
    "expiry is a text": {"exp": "soon"},
}


@pytest.mark.parametrize("change", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
async def test_each_claim_is_looked_at(tmp_path: Path, change: dict[str, Any]) -> None:
    async with deployed(tmp_path) as world:
        client_id = await registered(world)
        if change.get("aud") == "/oauth/token":
            change = {"aud": f"{world.issuer}/oauth/token"}
        if change.get("aud") == ["the issuer"]:
            change = {"aud": [world.issuer]}
        answer = await proven(world, assertion(world, client_id, **change))
        assert (answer.status, answer.json()["error"]) == (401, "invalid_client")


async def test_its_time_is_looked_at(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id, now = await registered(world), int(world.clock())
        all_times: list[dict[str, Any]] = [
            {"exp": now - 10},
            {"exp": now + 3600},
            {"iat": now + 60},
            {"nbf": now + 60},
        ]
        for times in all_times:
            assert not accepted(await proven(world, assertion(world, client_id, **times))), times
        assert accepted(await proven(world, assertion(world, client_id, exp=now + 300)))


async def test_only_the_clients_own_key_and_algorithm_count(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = await registered(world)
        for key, header in (
            (OTHER_KEY, {}),
            (OTHER_KEY, {"kid": KEY.kid}),
            (OctKey.generate_key(256), {"alg": "HS256", "kid": KEY.kid}),
            (OTHER_KEY, {"jwk": OTHER_KEY.as_dict(private=False)}),
            (KEY, {"typ": "at+jwt"}),
        ):
            answer = await proven(world, assertion(world, client_id, key, header))
            assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
        head, body, _ = assertion(world, client_id).split(".")
        assert not accepted(await proven(world, f"{head}.{body}."))
        assert not accepted(await proven(world, "eyJhbGciOiJub25lIn0." + body + "."))


async def test_the_assertion_is_the_only_proof_such_a_client_has(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = await registered(world)
        assert (await world.refresh(client_id, "none")).status == 401
        assert (await world.refresh(client_id, "none", client_secret="guess")).status == 401
        good = assertion(world, client_id)
        mixed = await proven(world, good, client_secret="guess")
        assert (mixed.status, mixed.json()["error"]) == (400, "invalid_request")
        assert (await proven(world, good, client_id="somebody")).status == 401
        assert (await proven(world, good, client_assertion_type="urn:other")).status == 401
        assert accepted(await proven(world, good, client_id=client_id))


async def test_a_public_client_cannot_be_impersonated_with_an_assertion(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        assert not accepted(await proven(world, assertion(world, client_id)))


async def serve_keys(site: WebSite, *keys: ECKey) -> str:
    return site.put("/jwks.json", jwks(*keys))


async def test_keys_are_fetched_from_jwks_uri_and_follow_it(tmp_path: Path) -> None:
    async with web_site() as site, deployed(tmp_path) as world:
        client_id = await registered(world, jwks_uri=await serve_keys(site))
        assert site.visits == [], "not fetched at registration"
        assert accepted(await proven(world, assertion(world, client_id)))
        assert accepted(await proven(world, assertion(world, client_id)))
        assert len(site.visits) == 1
        await serve_keys(site, KEY, OTHER_KEY)
        assert not accepted(await proven(world, assertion(world, client_id, OTHER_KEY)))
        assert len(site.visits) == 1, "at most one look in thirty seconds"
        world.clock.advance(31)
        assert accepted(await proven(world, assertion(world, client_id, OTHER_KEY)))


async def test_key_fetches_are_guarded_like_documents(tmp_path: Path) -> None:
    async with web_site() as site, deployed(tmp_path) as world:
        await serve_keys(site)
        redirect = site.put("/moved", b"", status=307, Location="/jwks.json")
        for uri in (
            redirect,
            "https://10.0.0.1/jwks.json",
            "http://169.254.169.254/jwks.json",
            f"http://127.0.0.1.:{site.port}/jwks.json",
            f"{site.url}/./jwks.json",
        ):
            client_id = await registered(world, jwks_uri=uri)
            assert (await proven(world, assertion(world, client_id))).status in (401, 503)
        assert site.visits == ["/moved"]


async def test_a_document_client_may_sign_or_not_where_it_lists_both(tmp_path: Path) -> None:
    async with web_site() as site, deployed(tmp_path) as world:
        path, client_id = "/c.json", f"{site.url}/c.json"
        described = {
            "client_id": client_id,
            "client_name": "Signs",
            "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": await serve_keys(site),
            "grant_types": ["authorization_code", "refresh_token"],
        }
        site.put(path, described, Cache_Control="no-store")
        # A sign-in makes the client known; until then nothing is fetched for it here.
        await world.call("GET", world.authorize_url(client_id, Pkce()))
        assert accepted(await proven(world, assertion(world, client_id)))
        assert (await world.refresh(client_id, "none")).status == 401
        both = ["private_key_jwt", "none"]
        site.put(path, described | {"token_endpoint_auth_methods_supported": both})
        assert accepted(await world.refresh(client_id, "none"))


@pytest.mark.parametrize(
    "keys", [{}, {"jwks": {"keys": []}, "jwks_uri": "https://c.example/k"}, {"jwks": []}]
)
async def test_a_signing_client_registers_exactly_one_source_of_keys(
    tmp_path: Path, keys: dict[str, object]
) -> None:
    async with deployed(tmp_path) as world:
        body = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "private_key_jwt"}
        answer = await world.call("POST", "/oauth/register", json=body | keys)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_client_metadata")


async def test_an_operator_configures_a_signing_client(tmp_path: Path) -> None:
    (tmp_path / "client.jwks").write_text(json.dumps(jwks()))
    static = {
        "clientId": "batch",
        "redirectUris": [CALLBACK],
        "tokenEndpointAuthMethod": "private_key_jwt",
        "jwksFile": "client.jwks",
    }
    async with deployed(tmp_path, clients={"static": [static]}) as world:
        assert accepted(await proven(world, assertion(world, "batch")))
        assert not accepted(await proven(world, assertion(world, "batch", OTHER_KEY)))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"aud": "{issuer}/oauth/token"}, "issuer"),
        ({"aud": ["{issuer}"]}, "issuer"),
        ({"exp": 3600}, "five minutes"),
    ],
    ids=str,
)
async def test_a_signed_assertion_that_breaks_a_rule_is_told_which(
    tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    """RFC 7523 allows the token endpoint as audience; we do not (audience injection)."""
    async with deployed(tmp_path) as world:
        client_id = await registered(world)
        if "exp" in changes:
            changes = {"exp": int(world.clock()) + 3600}
        else:
            text = json.dumps(changes).replace("{issuer}", world.issuer)
            changes = json.loads(text)
        answer = await proven(world, assertion(world, client_id, **changes))
        assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
        assert word in answer.json()["error_description"]
        forged = assertion(world, client_id, **changes)[:-6] + "AAAAAA"
        assert "error_description" not in (await proven(world, forged)).json()
