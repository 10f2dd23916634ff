"""The fake upstream at its HTTP door: what it hands out, to whom, and when it stops."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, KeySet
from yarl import URL

from demo.browser import Browser, Page
from demo.upstream import FakeUpstream

CLIENT_ID, SECRET = "tokenward", "s3cret/&=+%"
CALLBACK = "http://127.0.0.1:1/oauth/callback/acme"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()[:43]
LIFETIME = 100


def basic(name: str, secret: str) -> str:
    """Basic authentication as OAuth wants it: both halves form-encoded."""
    return aiohttp.encode_basic_auth(quote_plus(name), quote_plus(secret))


CLIENT = basic(CLIENT_ID, SECRET)


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Door:
    """The upstream as its client and its users meet it."""

    upstream: FakeUpstream
    clock: Clock
    http: aiohttp.ClientSession
    browser: Browser

    async def ask(self, **changes: str | None) -> Page:
        """Send the browser to the authorization endpoint; None leaves a parameter out."""
        parameters = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": CALLBACK,
            "scope": "openid profile email",
            "state": "xyz+/=",
            "nonce": "n-1",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **changes,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        return await self.browser.open(str(URL(f"{self.upstream.issuer}/authorize") % given))

    async def code(self, user: str = "alice", password: str = "rabbit") -> str:
        page = await self.ask()
        back = await self.browser.submit(page, {"username": user, "password": password})
        return back.query["code"]

    async def token(self, **form: str) -> tuple[int, dict[str, Any]]:
        return await self.post("/token", form, auth=CLIENT)

    async def redeem(self, code: str, **changes: str) -> tuple[int, dict[str, Any]]:
        form = {"redirect_uri": CALLBACK, "code_verifier": VERIFIER, **changes}
        return await self.token(grant_type="authorization_code", code=code, **form)

    async def refresh(self, refresh_token: str) -> tuple[int, dict[str, Any]]:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token)

    async def signed_in(self) -> dict[str, Any]:
        status, tokens = await self.redeem(await self.code())
        assert status == 200
        return tokens

    async def post(
        self, path: str, form: dict[str, str], auth: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        url, headers = self.upstream.issuer + path, {"Authorization": auth} if auth else {}
        async with self.http.post(url, data=form, headers=headers) as answer:
            return answer.status, await answer.json() if await answer.read() else {}

    async def get(self, path: str, token: str | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with self.http.get(self.upstream.issuer + path, headers=headers) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    clock = Clock()
    provider = FakeUpstream(
        client_id=CLIENT_ID,
        client_secret=SECRET,
        redirect_uri=CALLBACK,
        access_token_lifetime=LIFETIME,
        now=clock,
    )
    async with (
        provider.serve(port=0) as upstream,
        aiohttp.ClientSession() as http,
        Browser(leave_at=CALLBACK) as browser,
    ):
        yield Door(upstream, clock, http, browser)


async def test_a_user_signs_in_and_the_api_knows_them(door: Door) -> None:
    tokens = await door.signed_in()

    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == LIFETIME
    assert tokens["scope"] == "openid profile email"
    assert await door.get("/api/user", tokens["access_token"]) == (
        200,
        {"login": "alice", "id": 1001, "name": "Alice Liddell"},
    )
    status, claims = await door.get("/userinfo", tokens["access_token"])
    assert status == 200
    assert claims["sub"] == "user-1001"
    assert claims["email"] == "alice@example.com"


async def test_two_users_have_two_accounts(door: Door) -> None:
    _, alice = await door.redeem(await door.code())
    _, bob = await door.redeem(await door.code("bob", "humbug"))

    assert (await door.get("/api/user", alice["access_token"]))[1]["login"] == "alice"
    assert (await door.get("/api/user", bob["access_token"]))[1]["login"] == "bob"


async def test_the_answer_to_the_client_carries_state_byte_for_byte_and_the_issuer(
    door: Door,
) -> None:
    back = await door.browser.submit(await door.ask(), {"username": "alice", "password": "rabbit"})

    assert back.url.startswith(CALLBACK)
    assert back.query["state"] == "xyz+/="
    assert back.query["iss"] == door.upstream.issuer


async def test_the_id_token_is_signed_by_a_published_key_and_bound_to_client_and_nonce(
    door: Door,
) -> None:
    tokens = await door.signed_in()
    _, metadata = await door.get("/.well-known/openid-configuration")
    _, published = await door.get(metadata["jwks_uri"].removeprefix(door.upstream.issuer))

    signed = jws.deserialize_compact(
        tokens["id_token"], KeySet([ECKey.import_key(key) for key in published["keys"]])
    )

    claims = json.loads(signed.payload)
    assert claims["iss"] == metadata["issuer"] == door.upstream.issuer
    assert claims["sub"] == "user-1001"
    assert claims["aud"] == CLIENT_ID
    assert claims["nonce"] == "n-1"
    assert claims["iat"] == int(door.clock.now) < claims["exp"]
    assert all("d" not in key for key in published["keys"])


async def test_scopes_it_does_not_know_are_not_granted(door: Door) -> None:
    page = await door.ask(scope="openid admin")
    back = await door.browser.submit(page, {"username": "alice", "password": "rabbit"})

    _, tokens = await door.redeem(back.query["code"])

    assert tokens["scope"] == "openid"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge": None},
        {"code_challenge": "too-short"},
        {"code_challenge": VERIFIER, "code_challenge_method": "plain"},
        {"code_challenge_method": None},
    ],
)
async def test_without_an_s256_challenge_nobody_signs_in(
    door: Door, changes: dict[str, str | None]
) -> None:
    back = await door.ask(**changes)

    assert back.query["error"] == "invalid_request"
    assert back.query["state"] == "xyz+/="


async def test_another_response_type_is_refused(door: Door) -> None:
    assert (await door.ask(response_type="token")).query["error"] == "unsupported_response_type"


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": CALLBACK + "?x=1"},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": None},
        {"client_id": "somebody"},
        {"client_id": None},
    ],
)
async def test_an_unregistered_client_or_redirect_is_told_to_the_user_and_never_redirected(
    door: Door, changes: dict[str, str | None]
) -> None:
    page = await door.ask(**changes)

    assert page.status == 400
    assert "Location" not in page.headers


@pytest.mark.parametrize(
    ("username", "password"), [("alice", "humbug"), ("carol", "rabbit"), ("alice", "")]
)
async def test_a_wrong_password_shows_the_form_again_and_gives_no_code(
    door: Door, username: str, password: str
) -> None:
    refused = await door.browser.submit(
        await door.ask(), {"username": username, "password": password}
    )

    assert refused.status == 403
    back = await door.browser.submit(refused, {"username": "alice", "password": "rabbit"})
    assert "code" in back.query


async def test_a_sign_in_page_works_once(door: Door) -> None:
    page = await door.ask()
    await door.browser.submit(page, {"username": "alice", "password": "rabbit"})

    again = await door.browser.submit(page, {"username": "alice", "password": "rabbit"})

    assert again.status == 400


async def test_a_sign_in_page_expires(door: Door) -> None:
    page = await door.ask()
    door.clock.advance(600)

    late = await door.browser.submit(page, {"username": "alice", "password": "rabbit"})

    assert late.status == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"redirect_uri": CALLBACK + "/other"},
        {"code": "unknown"},
    ],
)
async def test_a_code_is_worth_nothing_without_its_verifier_and_redirect(
    door: Door, changes: dict[str, str]
) -> None:
    form = {"code": await door.code(), **changes}

    status, refusal = await door.redeem(**form)

    assert (status, refusal["error"]) == (400, "invalid_grant")


async def test_a_failed_redemption_spends_the_code(door: Door) -> None:
    code = await door.code()
    await door.redeem(code, code_verifier="w" * 43)

    assert (await door.redeem(code))[0] == 400


async def test_a_code_expires(door: Door) -> None:
    code = await door.code()
    door.clock.advance(60)

    assert (await door.redeem(code))[1]["error"] == "invalid_grant"


async def test_a_replayed_code_kills_the_tokens_it_gave(door: Door) -> None:
    code = await door.code()
    _, tokens = await door.redeem(code)

    assert (await door.redeem(code))[1]["error"] == "invalid_grant"
    assert (await door.get("/api/user", tokens["access_token"]))[0] == 401
    assert (await door.refresh(tokens["refresh_token"]))[0] == 400


async def test_an_access_token_works_until_its_lifetime_ends(door: Door) -> None:
    tokens = await door.signed_in()

    door.clock.advance(LIFETIME - 1)
    assert (await door.get("/api/user", tokens["access_token"]))[0] == 200
    door.clock.advance(1)
    assert (await door.get("/api/user", tokens["access_token"]))[0] == 401
    assert (await door.get("/userinfo", tokens["access_token"]))[0] == 401


@pytest.mark.parametrize("token", [None, "", "guess"])
async def test_the_api_accepts_only_its_own_tokens(door: Door, token: str | None) -> None:
    status, refusal = await door.get("/api/user", token)

    assert (status, refusal["error"]) == (401, "invalid_token")


async def test_a_refresh_rotates_the_refresh_token_and_keeps_the_user(door: Door) -> None:
    first = await door.signed_in()

    status, second = await door.refresh(first["refresh_token"])

    assert status == 200
    assert second["refresh_token"] != first["refresh_token"]
    assert (await door.get("/api/user", second["access_token"]))[1]["login"] == "alice"
    assert (await door.refresh(second["refresh_token"]))[0] == 200


async def test_a_reused_refresh_token_kills_the_grant_with_all_its_tokens(door: Door) -> None:
    first = await door.signed_in()
    _, second = await door.refresh(first["refresh_token"])

    status, refusal = await door.refresh(first["refresh_token"])

    assert (status, refusal["error"]) == (400, "invalid_grant")
    assert (await door.refresh(second["refresh_token"]))[1]["error"] == "invalid_grant"
    for tokens in (first, second):
        assert (await door.get("/api/user", tokens["access_token"]))[0] == 401


async def test_a_reuse_leaves_other_grants_of_the_same_user_alone(door: Door) -> None:
    other = await door.signed_in()
    first = await door.signed_in()
    await door.refresh(first["refresh_token"])
    await door.refresh(first["refresh_token"])

    assert (await door.get("/api/user", other["access_token"]))[0] == 200


@pytest.mark.parametrize("path", ["/token", "/revoke"])
@pytest.mark.parametrize(
    ("auth", "form"),
    [
        (None, {}),
        (basic(CLIENT_ID, "wrong"), {}),
        (basic("somebody", SECRET), {}),
        (None, {"client_id": CLIENT_ID, "client_secret": "wrong"}),
        (None, {"client_id": CLIENT_ID}),
    ],
)
async def test_a_client_without_the_right_secret_gets_nothing(
    door: Door, path: str, auth: str | None, form: dict[str, str]
) -> None:
    status, refusal = await door.post(path, {"grant_type": "refresh_token", **form}, auth)

    assert (status, refusal["error"]) == (401, "invalid_client")


async def test_the_secret_may_stand_in_the_form_but_not_in_both_places(door: Door) -> None:
    tokens = await door.signed_in()
    form = {
        "grant_type": "refresh_token",
        "refresh_token": tokens["refresh_token"],
        "client_id": CLIENT_ID,
        "client_secret": SECRET,
    }

    assert (await door.post("/token", form, auth=CLIENT))[1]["error"] == "invalid_request"
    assert (await door.post("/token", form))[0] == 200


async def test_another_grant_type_is_refused(door: Door) -> None:
    assert (await door.token(grant_type="password"))[1]["error"] == "unsupported_grant_type"


async def test_a_doubled_parameter_is_refused(door: Door) -> None:
    body = "grant_type=refresh_token&grant_type=authorization_code"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": CLIENT}

    async with door.http.post(
        f"{door.upstream.issuer}/token", data=body, headers=headers
    ) as answer:
        assert (await answer.json())["error"] == "invalid_request"


async def test_revoking_a_refresh_token_ends_the_grant(door: Door) -> None:
    tokens = await door.signed_in()

    status, _ = await door.post("/revoke", {"token": tokens["refresh_token"]}, CLIENT)

    assert status == 200
    assert (await door.get("/api/user", tokens["access_token"]))[0] == 401
    assert (await door.refresh(tokens["refresh_token"]))[0] == 400


async def test_revoking_an_access_token_ends_only_that_token(door: Door) -> None:
    tokens = await door.signed_in()

    await door.post("/revoke", {"token": tokens["access_token"]}, CLIENT)

    assert (await door.get("/api/user", tokens["access_token"]))[0] == 401
    assert (await door.refresh(tokens["refresh_token"]))[0] == 200


async def test_revoking_an_unknown_token_is_no_error(door: Door) -> None:
    assert (await door.post("/revoke", {"token": "never-issued"}, CLIENT))[0] == 200


async def test_the_counters_tell_what_happened_to_whom(door: Door) -> None:
    tokens = await door.signed_in()
    await door.get("/api/user", tokens["access_token"])
    await door.refresh(tokens["refresh_token"])
    await door.refresh(tokens["refresh_token"])

    _, counts = await door.get("/control/stats")

    assert counts["alice"] == {
        "code_redemptions": 1,
        "refreshes": 1,
        "reuse_detections": 1,
        "api_calls": 1,
    }
    assert set(counts["bob"].values()) == {0}
