"""Clients known by a URL (acceptance A10; threats A43 to A45)."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from authserver.clients.metadata_documents import BadDocument, check_url, lifetime
from authserver.clients.safe_fetch import SafeFetcher
from authserver.upstream.contract import Unavailable
from tests.fakes.web_site import web_site
from tests.support.client_documents import PATH, both, document
from tests.support.deployment import CALLBACK, Answer, Deployment, Pkce, deployed


async def asked(world: Deployment, client_id: str, **changes: str | None) -> Answer:
    return await world.call("GET", world.authorize_url(client_id, Pkce(), **changes))


async def test_a_document_client_gets_and_refreshes_tokens(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id))
        pkce = Pkce()
        code = await world.code(client_id, pkce)
        tokens = (await world.redeem(client_id, code, pkce)).json()
        again = await world.refresh(client_id, tokens["refresh_token"])
        assert again.status == 200, again.text
        assert site.visits == [PATH], "fetched once, then kept"


async def test_discovery_announces_documents_only_where_they_are_accepted(tmp_path: Path) -> None:
    member = "client_id_metadata_document_supported"
    path = "/.well-known/oauth-authorization-server"
    async with deployed(tmp_path) as world:
        assert (await world.call("GET", path)).json()[member] is True
    off = tmp_path / "off"
    off.mkdir()
    async with both(off, clients={"metadataDocuments": {"enabled": False}}) as (world, site):
        assert (await world.call("GET", path)).json()[member] is False
        answer = await asked(world, site.put(PATH, document(f"{site.url}{PATH}")))
        assert (answer.status, site.visits) == (400, [])


SHAPES = {
    "claude": {
        "client_name": "Claude Code",
        "client_uri": "https://claude.ai",
        "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
        "response_types": ["code"],
    },
    "vscode": {
        "client_name": "Visual Studio Code",
        "application_type": "native",
        "grant_types": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "redirect_uris": ["http://127.0.0.1/callback", "https://vscode.dev/redirect"],
    },
    "chatgpt": {
        "client_name": "ChatGPT",
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "none"],
        "jwks_uri": "https://chatgpt.com/oauth/jwks.json",
        "redirect_uris": ["https://chatgpt.com/connector/oauth/abc", CALLBACK],
        "logo_uri": "https://chatgpt.com/logo.png",
    },
    "one odd redirect URI among good ones": {"redirect_uris": ["javascript:alert(1)", CALLBACK]},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_documents_of_real_clients_are_accepted(
    tmp_path: Path, shape: dict[str, object]
) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id, **shape))
        pkce = Pkce()
        tokens = await world.redeem(client_id, await world.code(client_id, pkce), pkce)
        assert tokens.status == 200, tokens.text
        assert "refresh_token" in tokens.json()


async def test_the_consent_page_shows_the_host_and_loads_nothing_of_it(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id, logo_uri="https://tracker.example/logo.png"))
        page = await asked(world, client_id)
        assert page.status == 200
        assert f"127.0.0.1:{site.port}" in page.text
        assert "tracker.example" not in page.text


BAD_DOCUMENTS: dict[str, dict[str, object]] = {
    "other client_id": {"client_id": "https://other.example/client.json"},
    "no client_id": {"client_id": None},
    "no name": {"client_name": None},
    "no redirect URIs": {"redirect_uris": []},
    "only bad redirect URIs": {"redirect_uris": ["javascript:alert(1)"]},
    "secret method": {"token_endpoint_auth_method": "client_secret_basic"},
    "secret method listed": {"token_endpoint_auth_methods_supported": ["client_secret_post"]},
    "a secret": {"client_secret": "known to everybody"},
    "unknown method": {"token_endpoint_auth_method": "tls_client_auth"},
    "no code grant": {"grant_types": ["client_credentials"]},
    "too large": {"padding": "x" * 6000},
}


@pytest.mark.parametrize("change", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
async def test_a_bad_document_is_refused_without_a_redirect(
    tmp_path: Path, change: dict[str, object]
) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id, **change))
        answer = await asked(world, client_id)
        assert answer.status in (400, 503)
        assert "Location" not in answer.headers
        site.put(PATH, document(client_id))
        assert (await asked(world, client_id)).status == 200, "a failure is not remembered"


BAD_ANSWERS: dict[str, dict[str, Any]] = {
    "404": {"status": 404},
    "201": {"status": 201},
    "redirect": {"status": 302, "Location": "/elsewhere"},
    "permanent redirect": {"status": 308, "Location": "/elsewhere"},
    "html": {"media_type": "text/html"},
    "compressed": {"Content_Encoding": "gzip"},
}


@pytest.mark.parametrize("how", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_only_a_plain_200_of_json_counts(tmp_path: Path, how: dict[str, Any]) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put("/elsewhere", document(client_id))
        site.put(PATH, document(client_id), **how)
        assert (await asked(world, client_id)).status in (400, 503)
        assert site.visits == [PATH], "no redirect is followed"


@pytest.mark.parametrize(
    "body", [b'{"client_id": 1, "client_id": 2}', b"[]", b"{", b'{"a": NaN}', b"[" * 4000]
)
async def test_hostile_json_is_refused(tmp_path: Path, body: bytes) -> None:
    async with both(tmp_path) as (world, site):
        assert (await asked(world, site.put(PATH, body))).status == 400


async def test_a_document_that_drips_is_given_up_after_three_seconds(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        async with asyncio.timeout(6):
            answer = await asked(world, site.put_slow(PATH))
        assert answer.status == 503


async def test_waiting_requests_share_one_fetch(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id))
        answers = await asyncio.gather(*(asked(world, client_id) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert site.visits == [PATH]


async def test_a_document_is_kept_as_long_as_its_headers_say(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id), Cache_Control="max-age=900")
        await asked(world, client_id)
        world.clock.advance(899)
        await asked(world, client_id)
        assert len(site.visits) == 1
        world.clock.advance(2)
        await asked(world, client_id)
        assert len(site.visits) == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 300),
        ({"Cache-Control": "max-age=60"}, 60),
        ({"Cache-Control": "public, max-age=60", "Age": "50"}, 10),
        ({"Cache-Control": "max-age=60", "Age": "90"}, 0),
        ({"Cache-Control": "max-age=99999999"}, 86400),
        ({"Cache-Control": "no-store"}, 0),
        ({"Cache-Control": "no-cache, max-age=60"}, 0),
        ({"Cache-Control": "max-age=-5"}, 300),
    ],
)
def test_cache_headers_are_obeyed_within_a_day(headers: dict[str, str], seconds: int) -> None:
    assert lifetime(headers) == seconds


async def test_a_signed_in_client_survives_an_outage_of_its_host(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id))
        pkce = Pkce()
        tokens = (await world.redeem(client_id, await world.code(client_id, pkce), pkce)).json()
        site.put(PATH, b"", status=500)
        world.clock.advance(3600)
        refreshed = await world.refresh(client_id, tokens["refresh_token"])
        assert refreshed.status == 200, refreshed.text
        assert (await asked(world, client_id)).status == 503, "a new sign-in needs the document"
        world.clock.advance(86400)
        late = await world.refresh(client_id, refreshed.json()["refresh_token"])
        assert (late.status, late.json()["error"]) == (503, "temporarily_unavailable")


async def test_a_withdrawn_document_ends_the_client(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id))
        pkce = Pkce()
        tokens = (await world.redeem(client_id, await world.code(client_id, pkce), pkce)).json()
        site.put(PATH, document("https://other.example/client.json"))
        world.clock.advance(3600)
        answer = await world.refresh(client_id, tokens["refresh_token"])
        assert (answer.status, answer.json()["error"]) == (401, "invalid_client")


async def test_redirect_uris_that_change_during_a_sign_in_do_not_reach_it(tmp_path: Path) -> None:
    async with both(tmp_path) as (world, site):
        client_id = f"{site.url}{PATH}"
        site.put(PATH, document(client_id), Cache_Control="no-store")
        pkce = Pkce()
        code = await world.code(client_id, pkce)
        evil = "https://evil.example/callback"
        site.put(PATH, document(client_id, redirect_uris=[evil]), Cache_Control="no-store")
        assert (await world.redeem(client_id, code, pkce, redirect_uri=evil)).status == 400
        assert (await asked(world, client_id)).status == 400, "the new list counts from now on"


async def test_fetches_of_one_host_are_limited_and_health_is_not(tmp_path: Path) -> None:
    limits = {"metadataDocumentsPerHostPerMinute": 5}
    async with both(tmp_path, limits=limits) as (world, site):
        statuses = [(await asked(world, f"{site.url}/c/{n}.json")).status for n in range(8)]
        assert statuses == [503] * 5 + [429] * 3
        assert len(site.visits) == 5
        assert (await world.call("GET", "/.well-known/jwks.json")).status == 200


async def test_fetches_of_all_hosts_together_are_limited(tmp_path: Path) -> None:
    limits = {"metadataDocumentsPerMinute": 3}
    async with both(tmp_path, limits=limits) as (world, site):
        hosts = ["127.0.0.1", "localhost"] * 2
        urls = [f"http://{host}:{site.port}/{n}.json" for n, host in enumerate(hosts)]
        assert [(await asked(world, url)).status for url in urls] == [503] * 3 + [429]


@pytest.mark.parametrize(
    "url",
    [
        "http://client.example.com/client.json",
        "https://client.example.com",
        "https://client.example.com/",
        "https://client.example.com/a/../b.json",
        "https://client.example.com/a/%2e%2E/b.json",
        "https://client.example.com/./b.json",
        "https://client.example.com/b.json#part",
        "https://user@client.example.com/b.json",
        "https://client.example.com:8443/b.json",
        "https://127.0.0.1/b.json",
        "https://10.0.0.1/b.json",
        "https://[::1]/b.json",
        "https://[::ffff:127.0.0.1]/b.json",
        "https://2130706433/b.json",
        "https://127.1/b.json",
        "https://localhost/b.json",
        "https://authserver/b.json",
        "https://authserver.tokenward.svc/b.json",
        "https://authserver.tokenward.svc.cluster.local/b.json",
        "https://metadata.google.internal/b.json",
        "https://client.example.com./b.json",
        "https://client.example.com\\@evil.example/b.json",
        "https://client.example.com/b c.json",
        "https://clïent.example.com/b.json",
        "https://client.example.com/" + "x" * 1024,
    ],
)
def test_a_url_that_could_mean_something_else_is_no_client(url: str) -> None:
    with pytest.raises(BadDocument):
        check_url(url, loopback=False)


def test_a_plain_url_is_a_client() -> None:
    assert check_url("https://client.example.com:443/a/client.json?v=1", loopback=False)


async def test_urls_of_this_machine_are_clients_only_of_an_authserver_on_it(tmp_path: Path) -> None:
    async with both(tmp_path, issuer="https://auth.example.com") as (world, site):
        site.put(PATH, document(f"{site.url}{PATH}"))
        answer = await asked(world, f"{site.url}{PATH}")
        assert (answer.status, site.visits) == (400, [])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "239.1.1.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2002:7f00:1::", "2001:0:1::1",
        "64:ff9b::7f00:1", "64:ff9b:1::1", "2001:db8::1", "203.0.113.7",
    ],
)  # fmt: skip
def test_special_addresses_are_never_connected_to(address: str) -> None:
    assert not SafeFetcher().allows(address)


def test_public_addresses_are_connected_to_unless_the_operator_denies_them() -> None:
    assert SafeFetcher().allows("8.8.8.8")
    assert SafeFetcher().allows("2606:4700::1111")
    assert not SafeFetcher(denied=["8.8.0.0/16"]).allows("8.8.8.8")


class _Changing(AbstractResolver):
    """A name that leads to our own machine, whatever it led to when somebody checked."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
        )
        return [found]

    async def close(self) -> None:
        pass


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to() -> None:
    async with web_site() as site:
        site.put(PATH, b"{}")
        for url in (
            f"http://rebind.example.com:{site.port}{PATH}",  # a resolver's answer
            f"http://127.0.0.1:{site.port}{PATH}",  # a literal, which no resolver sees
        ):
            with pytest.raises(Unavailable):
                await SafeFetcher(resolver=_Changing()).fetch(url, max_bytes=100)
            assert (
                await SafeFetcher(loopback=True, resolver=_Changing()).fetch(url, max_bytes=100)
            ).body
        assert len(site.visits) == 2


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with web_site() as site, web_site() as proxy:
        site.put(PATH, b"{}")
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        await SafeFetcher(loopback=True).fetch(f"{site.url}{PATH}", max_bytes=100)
        assert (proxy.visits, site.visits) == ([], [PATH])
