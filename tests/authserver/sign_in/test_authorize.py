"""The authorization endpoint: what is refused, and to whom the refusal is told."""

import base64
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from demo.browser import Browser
from demo.forms import parse_forms
from tests.support.database_file import count
from tests.support.deployment import CALLBACK, NOTES, TASKS, Deployment, Pkce, deployed, walk
from tests.support.sign_in_steps import (
    ExchangeRequest,
    ask,
    consent,
    cookie_of,
    finish,
    query_of,
    return_from_upstream,
)

WEB = "https://client.example.com/cb"

# What is wrong with a request whose client and redirect URI are right.
FAULTS: list[tuple[dict[str, str | None], str]] = [
    ({"response_type": None}, "unsupported_response_type"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code token"}, "unsupported_response_type"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"response_mode": "form_post"}, "invalid_request"),
    ({"code_challenge": None}, "invalid_request"),
    ({"code_challenge": "a" * 42}, "invalid_request"),
    ({"code_challenge": "a" * 44}, "invalid_request"),
    ({"code_challenge": "a" * 42 + "+"}, "invalid_request"),
    ({"code_challenge": "a" * 43 + "\n"}, "invalid_request"),
    ({"code_challenge_method": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge_method": "s256"}, "invalid_request"),
    ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    ({"request": "eyJhbGciOiJub25lIn0.e30."}, "invalid_request"),
    ({"request_uri": "https://evil.example/request"}, "invalid_request"),
    ({"resource": None}, "invalid_target"),
    ({"resource": ""}, "invalid_target"),
    ({"resource": "https://unknown.example.com/mcp"}, "invalid_target"),
    ({"resource": f"{NOTES}#fragment"}, "invalid_target"),
    ({"resource": f"{NOTES}#"}, "invalid_target"),
    ({"resource": f"{NOTES}?a=b"}, "invalid_target"),
    ({"resource": f"{NOTES}x"}, "invalid_target"),
    ({"resource": f"{NOTES}//"}, "invalid_target"),
    ({"resource": "https://user@notes.example.com/mcp"}, "invalid_target"),
    ({"resource": "http://notes.example.com/mcp"}, "invalid_target"),
    ({"resource": "https://notes.example.com:8443/mcp"}, "invalid_target"),
    ({"resource": "https://notes.example.com/MCP"}, "invalid_target"),
    ({"resource": "//notes.example.com/mcp"}, "invalid_target"),
    ({"resource": f"{NOTES} {TASKS}"}, "invalid_target"),
]


async def test_a_stranger_and_an_unregistered_address_meet_a_page_and_no_redirect(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register(redirect_uris=[CALLBACK, WEB]))["client_id"]
        refused: list[dict[str, str | None]] = [
            {"client_id": None},
            {"client_id": ""},
            {"client_id": "tw-unknown"},
            {"client_id": f"{client_id} "},
            {"redirect_uri": None},
            {"redirect_uri": ""},
            {"redirect_uri": "https://evil.example/cb"},
            {"redirect_uri": f"{WEB}/"},
            {"redirect_uri": f"{WEB}?added=1"},
            {"redirect_uri": "http://127.0.0.1:9999@evil.example/callback"},
            {"redirect_uri": "https://127.0.0.1:9999/callback"},
        ]
        for changes in refused:
            answer = await world.call("GET", world.authorize_url(client_id, Pkce(), **changes))
            assert answer.status == 400, changes
            assert answer.headers["Content-Type"].startswith("text/html"), changes
            assert "Location" not in answer.headers, changes
        assert await count(tmp_path, "transactions") == 0


async def test_every_fault_goes_back_to_a_local_client_with_its_state_and_our_issuer(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        for changes, error in FAULTS:
            answer = await world.call("GET", world.authorize_url(client_id, Pkce(), **changes))
            assert answer.status == 303, changes
            location = answer.headers["Location"]
            assert location.startswith(f"{CALLBACK}?"), changes
            told = query_of(location)
            told.pop("error_description", None)
            expected = {"error": error, "state": "client-state", "iss": world.issuer}
            assert told == expected, changes
        assert await count(tmp_path, "transactions") == 0


async def test_a_self_registered_web_site_gets_nobody_sent_to_it_by_a_faulty_request(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register(redirect_uris=[WEB]))["client_id"]
        for changes, _ in FAULTS:
            url = world.authorize_url(client_id, Pkce(), redirect_uri=WEB, **changes)
            answer = await world.call("GET", url)
            assert (answer.status, answer.headers.get("Location")) == (400, None), changes


async def test_a_configured_web_site_is_told_about_its_faulty_request(tmp_path: Path) -> None:
    configured = {
        "clientId": "portal",
        "redirectUris": [WEB],
        "tokenEndpointAuthMethod": "none",
    }
    async with deployed(tmp_path, clients={"static": [configured]}) as world:
        url = world.authorize_url("portal", Pkce(), redirect_uri=WEB, resource=None)
        answer = await world.call("GET", url)
        assert answer.status == 303
        assert answer.headers["Location"].startswith(f"{WEB}?")
        assert query_of(answer.headers["Location"])["error"] == "invalid_target"


@pytest.mark.parametrize("twice", ["client_id", "redirect_uri", "state", "scope", "code_challenge"])
async def test_a_parameter_that_appears_twice_is_refused_before_anything_is_believed(
    tmp_path: Path, twice: str
) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        for again in (f"{twice}={quote(query_of(url)[twice], safe='')}", f"{twice}=other"):
            answer = await world.call("GET", f"{url}&{again}")
            assert (answer.status, answer.headers.get("Location")) == (400, None)
            assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("state", [None, "s", "a+/=&b c", "ü%0d%0aX: y", "s" * 24, "s" * 4096])
async def test_the_clients_state_comes_back_byte_for_byte(
    tmp_path: Path, state: str | None
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce(), state=state))
        told = query_of((await consent(world, asked, "deny")).headers["Location"])
        assert told.get("state") == state
        assert told["iss"] == world.issuer


async def test_a_state_without_end_is_refused(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        url = world.authorize_url(client_id, Pkce(), state="s" * 4097)
        answer = await world.call("GET", url)
        assert query_of(answer.headers["Location"])["error"] == "invalid_request"
        assert await count(tmp_path, "transactions") == 0


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, "mcp"),
        ("mcp", "mcp"),
        ("mcp unknown", "mcp"),
        ("unknown", ""),
        ("mcp offline_access openid email", "mcp offline_access openid"),
        ("mcp mcp", "mcp"),
        ("  mcp  ", "mcp"),
    ],
)
async def test_unknown_scopes_are_dropped_and_the_granted_ones_reported(
    tmp_path: Path, asked: str | None, granted: str
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope=asked)
        assert alice.scope == granted


@pytest.mark.parametrize("prompt", ["consent", "login", "select_account", "made-up"])
async def test_any_prompt_is_taken_and_none_of_them_skips_consent(
    tmp_path: Path, prompt: str
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        asked = await ask(world, world.authorize_url(client_id, Pkce(), prompt=prompt))
        sent_to = (await consent(world, asked)).headers["Location"]
        assert "prompt" not in query_of(sent_to)


@pytest.mark.parametrize(
    ("redirect_uri", "prompt", "error"),
    [
        (CALLBACK, "none", "login_required"),
        (CALLBACK, "none login", "invalid_request"),
        ("https://app.example.com/cb", "none", None),
        ("https://app.example.com/cb", "none consent", None),
    ],
)
async def test_prompt_none_is_answered_with_an_error_and_never_a_question(
    tmp_path: Path, redirect_uri: str, prompt: str, error: str | None
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register(redirect_uris=[redirect_uri]))["client_id"]
        url = world.authorize_url(client_id, Pkce(), redirect_uri=redirect_uri, prompt=prompt)
        answer = await world.call("GET", url)
        assert "<form" not in answer.text
        if error is None:  # a web site that nobody vouches for gets nobody sent to it
            assert (answer.status, answer.headers.get("Location")) == (400, None)
        else:
            assert query_of(answer.headers["Location"])["error"] == error
        assert await count(tmp_path, "transactions") == 0


async def test_a_signed_in_person_of_a_local_application_still_gets_no_page_by_prompt_none(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        client_id = (await world.register())["client_id"]
        await walk(browser, world.authorize_url(client_id, Pkce()), "alice")
        page = await browser.open(world.authorize_url(client_id, Pkce(), prompt="none"))
        assert page.query["error"] == "consent_required"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["https://notes.example.com/mcp"], None),
        (["https://notes.example.com/mcp/", "HTTPS://notes.example.com/mcp"], None),
        (["https://tasks.example.com/mcp"], "invalid_target"),
        (["https://unknown.example.com/mcp"], "invalid_target"),
        (["x"], "invalid_target"),
    ],
)
async def test_a_resource_may_be_named_twice_but_a_token_is_for_one(
    tmp_path: Path, more: list[str], error: str | None
) -> None:
    """RFC 8707 section 2: `resource` may appear more than once."""
    async with deployed(tmp_path) as world:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        again = "".join(f"&resource={quote(uri, safe='')}" for uri in more)
        answer = await world.call("GET", world.authorize_url(client_id, pkce) + again)
        if error is None:
            assert (answer.status, "<form" in answer.text) == (200, True)
        else:
            assert query_of(answer.headers["Location"])["error"] == error
        code = await world.code(client_id, pkce)
        fields = [
            ("grant_type", "authorization_code"),
            ("client_id", client_id),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", pkce.verifier),
        ]
        fields += [("resource", uri) for uri in (NOTES, *more)]
        redeemed = await world.call("POST", "/oauth/token", data=fields)
        assert redeemed.status == (200 if error is None else 400)
        assert redeemed.json().get("error") == error


async def test_a_sign_in_may_begin_with_a_post(tmp_path: Path) -> None:
    """OpenID Connect Core section 3.1.2.1."""
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        page = await world.call("POST", "/oauth/authorize", data=query_of(url))
        assert page.status == 200
        asked = ExchangeRequest(
            page, cookie_of(page), parse_forms(page.text)[0].fields["transaction"]
        )
        assert (await consent(world, asked)).status == 303
        both = await world.call("POST", "/oauth/authorize?scope=mcp", data=query_of(url))
        assert both.status == 400


@pytest.mark.parametrize(
    "spelling",
    [
        "HTTPS://Notes.Example.COM/mcp",
        "https://notes.example.com:443/mcp",
        "https://notes.example.com/mcp/",
    ],
)
async def test_a_resource_is_issued_in_the_configured_spelling_whatever_was_asked(
    tmp_path: Path, spelling: str
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", resource=spelling)
        payload = alice.access_token.split(".")[1]
        claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        assert f'"aud":"{NOTES}"'.encode() in claims


async def test_a_loopback_client_is_answered_at_the_port_it_asked_for(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        registered = "http://localhost/callback"
        client_id, pkce = (await world.register(redirect_uris=[registered]))["client_id"], Pkce()
        asked = "http://localhost:51234/callback"
        url = world.authorize_url(client_id, pkce, redirect_uri=asked)
        answer = await finish(world, await return_from_upstream(world, url))
        location = answer.headers["Location"]
        assert location.startswith(f"{asked}?")
        code = query_of(location)["code"]
        for other in (registered, "http://localhost:51235/callback"):
            refused = await world.redeem(client_id, code, pkce, redirect_uri=other)
            assert refused.json()["error"] == "invalid_grant"
        assert (await world.redeem(client_id, code, pkce, redirect_uri=asked)).status == 200


async def test_a_head_request_starts_no_sign_in(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        assert (await world.call("HEAD", url)).status == 405
        assert await count(tmp_path, "transactions") == 0


async def test_several_tabs_of_one_browser_sign_in_side_by_side(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        first = await ask(world, world.authorize_url(client_id, Pkce()))
        second = await ask(world, world.authorize_url(client_id, Pkce()), first.cookie)
        assert second.cookie == first.cookie
        for asked in (first, second):
            assert (await consent(world, asked)).status == 303


async def test_the_user_signs_in_upstream_with_nothing_of_the_clients_request(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        pkce = Pkce()
        url = world.authorize_url(client_id, pkce, prompt="login", login_hint="alice", nonce="n")
        sent = []
        for _ in range(2):
            location = (await consent(world, await ask(world, url))).headers["Location"]
            assert location.startswith(f"{world.upstream.issuer}/authorize?")
            sent.append(query_of(location))
        for query in sent:
            assert query.pop("redirect_uri") == f"{world.issuer}/oauth/callback/acme"
            assert query.pop("client_id") == "tokenward"
            assert query.pop("response_type") == "code"
            assert query.pop("scope") == "openid"
            assert query.pop("code_challenge_method") == "S256"
        fresh = {"state", "nonce", "code_challenge"}
        assert set(sent[0]) == set(sent[1]) == fresh
        assert not any(sent[0][name] == sent[1][name] for name in fresh)
        ours = {"client-state", pkce.challenge, NOTES, client_id, urlsplit(CALLBACK).netloc}
        assert not ours & set(sent[0].values())


async def test_a_deployment_of_two_resources_keeps_their_tokens_apart(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        notes = await world.signed_in("alice", resource=NOTES)
        tasks = await world.signed_in("alice", resource=TASKS)
        statuses = await _exchanged(world, notes.access_token, tasks.access_token)
        assert statuses == {"notes": [200, 400], "tasks": [400, 200]}


async def _exchanged(world: Deployment, *jwts: str) -> dict[str, list[int]]:
    return {
        name: [(await world.exchange(f"mcp-servers/{name}", jwt)).status for jwt in jwts]
        for name in ("notes", "tasks")
    }
