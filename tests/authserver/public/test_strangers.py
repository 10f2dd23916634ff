"""A stranger far beyond every limit is held back, and nobody else notices: drills at the door."""

from pathlib import Path
from typing import Any

import pytest

from authserver.oauth.errors import RateLimited
from authserver.rate_limit import SharedRateLimit
from tests.support.client_documents import PATH, both, document
from tests.support.database_file import count, sql
from tests.support.deployment import CALLBACK, Answer, Deployment, Pkce, deployed
from tests.support.sign_in_steps import ask, consent, finish, return_from_upstream

STRANGER, USER, NEWCOMER = "203.0.113.9", "198.51.100.7", "192.0.2.44"
WEB = {"redirect_uris": ["https://app.example.com/cb"]}


def listeners(**public: object) -> dict[str, Any]:
    """The listeners of a deployment whose public one differs like this."""
    loopback: dict[str, object] = {"host": "127.0.0.1", "port": 0}
    files = {"certFile": "tls.crt", "keyFile": "tls.key", "clientCAFile": "workloads.pem"}
    return {"public": loopback | public, "internal": loopback | files, "ops": loopback}


BEHIND_PROXY = listeners(behindTLSProxy=True, trustedProxies=["127.0.0.1/32"])


def from_(source: str) -> dict[str, str]:
    return {"X-Forwarded-For": source}


async def opened(world: Deployment, client_id: str, source: str) -> Answer:
    return await world.call("GET", world.authorize_url(client_id, Pkce()), headers=from_(source))


async def test_a_stranger_at_the_token_endpoint_makes_nobody_fetch_a_document(
    tmp_path: Path,
) -> None:
    async with both(tmp_path, listeners=BEHIND_PROXY) as (world, site):
        client_id = site.put(PATH, document(f"{site.url}{PATH}"), Cache_Control="max-age=5")
        pkce = Pkce()
        tokens = (await world.redeem(client_id, await world.code(client_id, pkce), pkce)).json()
        for path in ("token", "revoke", "introspect"):
            for n in range(100):
                fields = {"client_id": f"{site.url}/made/up/{n}.json", "token": "x"}
                answer = await world.call("POST", f"/oauth/{path}", data=fields)
                assert answer.json()["error"] == "invalid_client"
        assert set(site.visits) == {PATH}
        world.clock.advance(6)
        refreshed = await world.refresh(client_id, tokens["refresh_token"])
        assert refreshed.status == 200, refreshed.text
        world.clock.advance(6)
        assert (await opened(world, client_id, USER)).status == 200


async def test_a_stranger_at_the_sign_in_keeps_no_client_of_the_same_host_out(
    tmp_path: Path,
) -> None:
    async with both(tmp_path, listeners=BEHIND_PROXY) as (world, site):
        known = site.put(PATH, document(f"{site.url}{PATH}"), Cache_Control="max-age=5")
        new = site.put("/new.json", document(f"{site.url}/new.json"))
        assert (await opened(world, known, USER)).status == 200
        world.clock.advance(6)
        statuses = [
            (await opened(world, f"{site.url}/made/up/{n}.json", STRANGER)).status
            for n in range(100)
        ]
        assert statuses.count(429) == 90, "ten fetches a minute of one source"
        assert (await opened(world, known, USER)).status == 200
        assert (await opened(world, new, NEWCOMER)).status == 200


async def test_a_kept_document_stands_in_when_its_own_limit_is_hit(tmp_path: Path) -> None:
    limits = {"metadataDocumentsPerHostPerMinute": 5}
    async with both(tmp_path, limits=limits) as (world, site):
        client_id = site.put(PATH, document(f"{site.url}{PATH}"), Cache_Control="no-store")
        statuses = {(await opened(world, client_id, USER)).status for _ in range(50)}
        assert statuses == {200}
        assert len(site.visits) == 6, "once as a stranger, then five times a minute"


async def test_a_session_makes_a_client_known_to_a_fresh_process(tmp_path: Path) -> None:
    async with both(tmp_path, listeners=BEHIND_PROXY) as (world, site):
        client_id = site.put(PATH, document(f"{site.url}{PATH}"), Cache_Control="max-age=5")
        pkce = Pkce()
        tokens = (await world.redeem(client_id, await world.code(client_id, pkce), pkce)).json()
        directory = world.server._public_flows().clients()[0]  # as after a start: nothing is kept
        found = await directory.get(client_id, world.clock(), signed_in=True)
        assert found is not None
        assert tokens["refresh_token"]
        stranger = f"{site.url}/other.json"
        assert await directory.get(stranger, world.clock(), signed_in=True) is None


async def test_a_document_that_is_too_large_is_refused_for_good(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        url = f"{site.url}{PATH}"
        site.put(PATH, document(url, client_name="x" * 6000))
        assert (await opened(world, url, USER)).status == 400


async def test_registration_is_never_closed_by_registrations_nobody_uses(tmp_path: Path) -> None:
    limits = {
        "registrationsPerSourcePerMinute": 10_000,
        "registrationsPerMinute": 10_000,
        "unusedRegistrations": 20,
    }
    async with deployed(tmp_path, limits=limits) as world:
        signed_in = await world.signed_in()
        for _ in range(200):
            world.clock.advance(1)
            assert (await world.call("POST", "/oauth/register", json=WEB)).status == 201
        world.clock.advance(1)  # among registrations of one second, any may be the older
        client_id, pkce = (await world.register())["client_id"], Pkce()
        for _ in range(19):
            world.clock.advance(1)
            await world.call("POST", "/oauth/register", json=WEB)
        code = await world.code(client_id, pkce)
        assert (await world.redeem(client_id, code, pkce)).status == 200
        assert (await world.refresh(signed_in.client_id, signed_in.refresh_token)).status == 200
        assert await count(tmp_path, "clients") <= 22


async def test_one_source_uses_up_no_registration_of_the_others(tmp_path: Path) -> None:
    limits = {"registrationsPerSourcePerMinute": 10_000, "registrationsPerMinute": 50}
    async with deployed(tmp_path, limits=limits, listeners=BEHIND_PROXY) as world:

        async def register(source: str) -> int:
            answer = await world.call("POST", "/oauth/register", json=WEB, headers=from_(source))
            return answer.status

        stranger = [await register(STRANGER) for _ in range(500)]
        assert stranger.count(201) == 40
        assert [await register(f"192.0.2.{n}") for n in range(10)] == [201] * 10


def test_a_reserved_part_is_for_keys_not_seen_lately() -> None:
    limit = SharedRateLimit("x", 10, 60)
    for _ in range(8):
        limit.take("stranger", 0)
    with pytest.raises(RateLimited):
        limit.take("stranger", 0)
    limit.take("user", 0)
    limit.take("other", 0)
    with pytest.raises(RateLimited):
        limit.take("third", 0)
    limit.take("stranger", 60)


async def test_behind_a_proxy_nobody_listed_a_stranger_is_counted_and_others_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {
        "registrationsPerSourcePerMinute": 2,
        "failedAuthenticationsPerSourcePerMinute": 2,
        "tokenRequestsPerClientAndSourcePerMinute": 2,
    }
    shared = listeners(behindTLSProxy=True)
    async with deployed(tmp_path, limits=limits, listeners=shared) as world:
        assert "trusted_proxies_not_set" in caplog.text
        client = await world.register(token_endpoint_auth_method="client_secret_post")
        client_id, secret, pkce = client["client_id"], client["client_secret"], Pkce()
        code = await world.code(client_id, pkce)
        tokens = (await world.redeem(client_id, code, pkce, client_secret=secret)).json()
        guesses = [
            (await world.refresh(client_id, "none", client_secret=f"guess {n}")).status
            for n in range(400)
        ]
        assert guesses == [401] * 40 + [429] * 360
        for _ in range(60):
            await world.refresh(client_id, "none", client_secret=secret)
        again = await world.refresh(client_id, tokens["refresh_token"], client_secret=secret)
        assert again.status == 200, again.text
        registrations = [
            (await world.call("POST", "/oauth/register", json=WEB)).status for _ in range(60)
        ]
        assert registrations == [201] * 39 + [429] * 21


async def test_a_listed_proxy_needs_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path, listeners=BEHIND_PROXY):
        assert "trusted_proxies_not_set" not in caplog.text


async def test_sign_ins_nobody_finishes_push_out_only_the_oldest_questions(tmp_path: Path) -> None:
    async with deployed(tmp_path, limits={"pendingSignIns": 100}) as world:
        client_id = (await world.register())["client_id"]
        url = world.authorize_url(client_id, Pkce())
        upstream = await return_from_upstream(world, url)
        for _ in range(300):
            world.clock.advance(0.15)
            assert (await world.call("GET", url)).status == 200
        asked = await ask(world, url)
        for _ in range(30):
            await world.call("GET", url)
        assert await count(tmp_path, "transactions") <= 100 + 64 + 1
        assert (await consent(world, asked)).status == 303
        assert (await finish(world, upstream)).status == 303
        assert await sql(tmp_path, "SELECT COUNT(*) FROM sessions") == [(1,)]


@pytest.mark.parametrize(
    "uri",
    [
        "smb://evil.example/share", "search-ms:/query", "ssh://evil.example/", "ldap://evil.example/",
        "itms-services://?action=download", "ms-msdt:/id", "ms-officecmd:/x", "file:///etc/passwd",
        "git+ssh://evil.example/x", "javascript://x/%0aalert(1)", "data:/text/html,x",
        "vnc://evil.example/", "x-apple-reminder:/x", "webcal://evil.example/", "tel:/1",
    ],
)  # fmt: skip
async def test_a_scheme_of_the_network_or_the_system_is_no_redirect_uri(
    tmp_path: Path, uri: str
) -> None:
    async with deployed(tmp_path) as world:
        answer = await world.call("POST", "/oauth/register", json={"redirect_uris": [uri]})
        assert (answer.status, answer.json()["error"]) == (400, "invalid_redirect_uri")


async def test_a_scheme_registered_under_older_rules_leads_nowhere(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        old = "smb://evil.example/share"
        await sql(
            tmp_path,
            "UPDATE clients SET metadata = REPLACE(metadata, ?, ?)",
            CALLBACK,
            old,
        )
        assert await sql(tmp_path, "SELECT 1 FROM clients WHERE metadata LIKE ?", f"%{old}%")
        for kind in ("code", "bad"):
            url = world.authorize_url(client_id, Pkce(), redirect_uri=old, response_type=kind)
            answer = await world.call("GET", url)
            assert (answer.status, answer.headers.get("Location")) == (400, None)
            assert "smb:" not in answer.text


async def test_nobody_is_moved_to_an_application_without_a_click(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        scheme = "evil-app://open/anything"
        client_id = (await world.register(redirect_uris=[scheme]))["client_id"]
        faulty = world.authorize_url(client_id, Pkce(), redirect_uri=scheme, response_type="bad")
        page = await world.call("GET", faulty)
        assert page.status == 200
        assert "http-equiv" not in page.text
        assert f'href="{scheme}?' in page.text
        url = world.authorize_url(client_id, Pkce(), redirect_uri=scheme)
        denied = await consent(world, await ask(world, url), "deny")
        assert "http-equiv" in denied.text, "the person has answered, and knows where it leads"
