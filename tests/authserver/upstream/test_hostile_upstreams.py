"""An OpenID provider that lies at sign-in: nobody is signed in, and nothing is stored."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from tests.fakes.web_site import WebSite, web_site
from tests.support.database_file import count
from tests.support.deployment import Deployment, Pkce, deployed
from tests.support.sign_in_steps import ask, consent, query_of

KEY = ECKey.generate_key("P-256", auto_kid=True)
OTHER = ECKey.generate_key("P-256", auto_kid=True)


@asynccontextmanager
async def provider(folder: Path) -> AsyncIterator[tuple[Deployment, WebSite]]:
    async with web_site() as site:
        upstream = {
            "name": "acme",
            "type": "oidc",
            "issuer": site.url,
            "clientId": "tokenward",
            "clientSecretFile": "upstream-secret",
        }
        discover(site)
        site.put("/jwks", {"keys": [KEY.as_dict(private=False)]})
        async with deployed(folder, upstreams=[upstream]) as world:
            yield world, site


def discover(site: WebSite, **changes: Any) -> None:
    document = {
        "issuer": site.url,
        "authorization_endpoint": f"{site.url}/authorize",
        "token_endpoint": f"{site.url}/token",
        "jwks_uri": f"{site.url}/jwks",
    }
    site.put("/.well-known/openid-configuration", document | changes)


def id_token(claims: dict[str, Any], header: dict[str, Any], key: ECKey | OctKey) -> str:
    kid = {"kid": key.kid} if key.kid else {}
    head = {"alg": "ES256", "typ": "JWT", **kid} | header
    return jws.serialize_compact(head, json.dumps(claims), key, algorithms=["ES256", "HS256"])


async def signed_in(
    world: Deployment,
    site: WebSite,
    answer: dict[str, Any] | None = None,
    *,
    key: ECKey | OctKey = KEY,
    header: dict[str, Any] | None = None,
    **changes: Any,
) -> bool:
    """Sign in with an ID token that is right but for `changes`; whether that worked."""
    client_id = str((await world.register())["client_id"])
    asked = await ask(world, world.authorize_url(client_id, Pkce()))
    location = (await consent(world, asked)).headers["Location"]
    query, now = query_of(location), int(world.clock())
    if "state" not in query or not location.startswith(site.url):
        return False
    claims = {
        "iss": site.url,
        "sub": "user-1",
        "aud": "tokenward",
        "exp": now + 300,
        "iat": now,
        "nonce": query["nonce"],
    } | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    tokens = {
        "access_token": "upstream-access",
        "token_type": "Bearer",
        "expires_in": 3600,
        "id_token": id_token(claims, header or {}, key),
    }
    site.put("/token", tokens | (answer or {}))
    path = f"/oauth/callback/acme?code=c&state={query['state']}"
    back = await world.call("GET", path, headers={"Cookie": asked.cookie})
    told = query_of(back.headers["Location"])
    assert told["iss"] == world.issuer
    return "code" in told


async def test_a_decent_provider_signs_its_user_in(tmp_path: Path) -> None:
    async with provider(tmp_path) as (world, site):
        assert await signed_in(world, site)
        assert await signed_in(world, site, aud=["tokenward"])


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "other issuer": {"iss": "https://other.example"},
    "no issuer": {"iss": None},
    "other audience": {"aud": "somebody"},
    "no audience": {"aud": None},
    "other authorized party": {"aud": ["tokenward", "other"], "azp": "other"},
    "several audiences and no authorized party": {"aud": ["tokenward", "other"]},
    "other nonce": {"nonce": "x" * 43},
    "no nonce": {"nonce": None},
    "expired": {"exp": 1},
    "no expiry": {"exp": None},
    "expiry is a text": {"exp": "9999999999"},
    "from the future": {"iat": 9_999_999_999},
    "no issue time": {"iat": None},
    "empty subject": {"sub": ""},
    "no subject": {"sub": None},
    "subject is a number": {"sub": 7},
    "subject too long": {"sub": "x" * 256},
    "other access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@pytest.mark.parametrize("change", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
async def test_an_id_token_that_is_not_for_this_sign_in_signs_nobody_in(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    async with provider(tmp_path) as (world, site):
        assert not await signed_in(world, site, **change)
        assert await count(tmp_path, "users") == 0


async def test_an_id_token_of_another_key_or_algorithm_signs_nobody_in(tmp_path: Path) -> None:
    async with provider(tmp_path) as (world, site):
        secret = OctKey.import_key("upstream secret canary")
        assert not await signed_in(world, site, key=OTHER)
        assert not await signed_in(world, site, key=OTHER, header={"kid": KEY.kid})
        assert not await signed_in(world, site, key=secret, header={"alg": "HS256"})
        hmac_by_kid = {"alg": "HS256", "kid": KEY.kid}
        assert not await signed_in(world, site, key=secret, header=hmac_by_kid)
        own = {"jwk": OTHER.as_dict(private=False)}
        assert not await signed_in(world, site, key=OTHER, header=own)
        assert not await signed_in(world, site, {"id_token": "eyJhbGciOiJub25lIn0.e30."})
        assert not await signed_in(world, site, {"id_token": None})
        assert await count(tmp_path, "users") == 0


BAD_ANSWERS: dict[str, dict[str, Any]] = {
    "no token": {"access_token": None},
    "token with a line break": {"access_token": "a\r\nSet-Cookie: x"},
    "token with a space": {"access_token": "a b"},
    "token beyond ASCII": {"access_token": "tökén"},
    "token is a number": {"access_token": 7},
    "endless token": {"access_token": "x" * 20_000},
    "bound to a key": {"token_type": "DPoP"},
    "another kind": {"token_type": "mac"},
    "no kind": {"token_type": None},
    "an error beside it": {"error": "access_denied"},
}


@pytest.mark.parametrize("change", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_a_token_answer_that_cannot_be_lent_signs_nobody_in(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    async with provider(tmp_path) as (world, site):
        assert not await signed_in(world, site, change)
        assert await count(tmp_path, "users") == 0


ODD_ANSWERS: dict[str, dict[str, Any]] = {
    "negative life": {"expires_in": -1},
    "no life": {"expires_in": 0},
    "endless life": {"expires_in": 10**18},
    "life is a float": {"expires_in": 3599.5},
    "life is not a number": {"expires_in": "3600x"},
    "life is true": {"expires_in": True},
    "an empty error": {"error": ""},
    "a list of scopes": {"scope": ["openid", "read"]},
}


@pytest.mark.parametrize("change", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_a_token_that_can_be_lent_signs_its_user_in_whatever_else_is_odd(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    async with provider(tmp_path) as (world, site):
        assert await signed_in(world, site, change)


async def test_an_id_token_may_name_its_key_and_have_times_with_fractions(tmp_path: Path) -> None:
    """Keys come from the provider's metadata; what else the header names is not looked at."""
    async with provider(tmp_path) as (world, site):
        now = world.clock() + 0.5
        hints = {"jku": "https://evil.example/jwks", "x5u": "https://evil.example/x", "x5c": ["AA"]}
        assert await signed_in(world, site, header=hints, iat=now, exp=now + 300)


async def test_a_key_among_a_hundred_is_found(tmp_path: Path) -> None:
    async with provider(tmp_path) as (world, site):
        others = [OTHER.as_dict(private=False) | {"kid": f"k{number}"} for number in range(99)]
        site.put("/jwks", {"keys": [*others, KEY.as_dict(private=False)]})
        assert await signed_in(world, site)


LIES: dict[str, dict[str, Any]] = {
    "other issuer": {"issuer": "https://other.example"},
    "no issuer": {"issuer": None},
    "an endpoint that is none": {"token_endpoint": 7},
    "no endpoint": {"authorization_endpoint": None},
    "an endpoint of another kind": {"token_endpoint": "file:///etc/passwd"},
    "methods that are no list": {"token_endpoint_auth_methods_supported": "none"},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_metadata_that_lies_signs_nobody_in(tmp_path: Path, lie: dict[str, Any]) -> None:
    async with provider(tmp_path) as (world, site):
        discover(site, **lie)
        assert not await signed_in(world, site)
        discover(site)
        world.clock.advance(6)
        assert await signed_in(world, site), "it is asked again a few seconds later"


async def test_metadata_is_bounded_and_never_redirected(tmp_path: Path) -> None:
    async with provider(tmp_path) as (world, site):
        path = "/.well-known/openid-configuration"
        site.put("/elsewhere", b"{}")
        answers: list[dict[str, Any]] = [
            {"status": 307, "Location": "/elsewhere"},
            {"status": 500},
        ]
        for how in answers:
            site.put(path, b"{}", **how)
            assert not await signed_in(world, site)
            world.clock.advance(6)
        site.put(path, b'{"padding": "' + b"x" * 5_000_000 + b'"}')
        async with asyncio.timeout(10):
            assert not await signed_in(world, site)
        assert "/elsewhere" not in site.visits


async def test_proxies_of_the_environment_see_no_upstream_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with web_site() as proxy, provider(tmp_path) as (world, site):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert await signed_in(world, site)
        assert proxy.visits == []
