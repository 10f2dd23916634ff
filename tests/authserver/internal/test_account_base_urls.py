"""APIs whose base URL comes with the account's token, from the token answer to the exchange's."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from aiohttp import web

from authserver.storage.records import UpstreamTokens
from demo.upstream.dialects.server import ALICE, BOB
from tests.authserver.upstream.test_providers import Scene, Signed, scene
from tests.support.database_file import sql
from tests.support.exchanging import exchanging
from tests.support.storage_fixtures import NOW

ACME, OTHER = "https://acme.my.salesforce.com", "https://other.my.salesforce.com"
REST: dict[str, Any] = {
    "name": "rest",
    "baseUrlFrom": {
        "member": "instance_url",
        "hosts": ["*.my.salesforce.com"],
        "path": "/v1",
    },
    "methods": ["GET"],
    "pathPrefixes": ["/repos"],
    "default": True,
}
UNPLACED = [{"name": "rest", "default": True}]


def says(s: Scene, instance_url: Any) -> None:
    """What the provider's token answers say from now on."""
    s.provider.adds = {"instance_url": instance_url}


async def given(s: Scene, signed: Signed) -> dict[str, Any]:
    answer = await s.exchange(signed)
    assert answer.status == 200, answer.text
    return answer.json()


async def base_urls(s: Scene, signed: Signed) -> list[str]:
    members = await given(s, signed)
    assert members.get("apis_without_base_url", UNPLACED) == UNPLACED
    assert bool(members["apis"]) is ("apis_without_base_url" not in members)
    return [api["base_url"] for api in members["apis"]]


async def refreshed(s: Scene, signed: Signed) -> None:
    token = (await given(s, signed))["access_token"]
    assert (await s.replaced(signed, token)).json()["access_token"] != token


async def configure(s: Scene, **changes: Any) -> None:
    """Change the upstream of the running authserver."""
    configuration = yaml.safe_load((s.world.folder / "authserver.yaml").read_text())
    (upstream,) = configuration["upstreams"]
    await s.world.reconfigure(upstreams=[upstream | changes])


def narrowed(*hosts: str) -> list[dict[str, Any]]:
    return [{"name": "rest", "baseUrlFrom": {"member": "instance_url", "hosts": list(hosts)}}]


async def test_each_account_has_its_own_base_url(tmp_path: Path) -> None:
    async with scene(tmp_path, "salesforce") as s:
        says(s, f"{ACME}/")
        alice = await s.sign_in(ALICE)
        says(s, OTHER)
        bob = await s.sign_in(BOB)
        for _ in range(2):
            assert await base_urls(s, alice) == [ACME]
            assert await base_urls(s, bob) == [OTHER]
        (api,) = (await given(s, alice))["apis"]
        assert (api["name"], api["default"], "base_url_from" in api) == ("rest", True, False)


async def test_the_base_url_is_sealed_with_the_token(tmp_path: Path) -> None:
    async with scene(tmp_path, "salesforce") as s:
        says(s, ACME)
        alice = await s.sign_in(ALICE)
        says(s, OTHER)
        await s.sign_in(BOB)
        assert b"my.salesforce.com" not in s.world.stored_bytes()
        # Whoever writes to the database cannot give one user the other's.
        sealed = [row[0] for row in await sql(tmp_path, "SELECT sealed_tokens FROM connections")]
        assert len(set(sealed)) == 2
        statuses = []
        for value in sealed:
            await sql(tmp_path, "UPDATE connections SET sealed_tokens = ?", value)
            answer = await s.exchange(alice)
            assert OTHER not in answer.text
            statuses.append(answer.status)
        assert sorted(statuses) == [200, 503]


async def test_a_refresh_replaces_keeps_or_drops_it(tmp_path: Path) -> None:
    async with scene(tmp_path, "salesforce with rotation") as s:
        says(s, ACME)
        alice = await s.sign_in()
        says(s, OTHER)
        await refreshed(s, alice)
        assert await base_urls(s, alice) == [OTHER]
        says(s, None)
        await refreshed(s, alice)
        assert await base_urls(s, alice) == [OTHER]
        says(s, "https://evil.example")
        await refreshed(s, alice)
        assert await base_urls(s, alice) == []
        says(s, ACME)
        await refreshed(s, alice)
        assert await base_urls(s, alice) == [ACME]


@pytest.mark.parametrize(
    "value",
    [
        "https://canary.example",
        "https://canary@acme.my.salesforce.com",
        f"{ACME}.canary",
        7,
        [ACME],
    ],
    ids=str,
)
async def test_a_sign_in_goes_on_without_what_is_not_believed(
    tmp_path: Path, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with scene(tmp_path, "salesforce") as s:
        says(s, value)
        alice = await s.sign_in()
        members = await given(s, alice)
        # The token itself is handed out as before; only Attach has nowhere to go.
        assert s.provider.accepts(members["access_token"])
        assert (members["apis"], members["apis_without_base_url"]) == ([], UNPLACED)
        assert "canary" not in str(members)
        assert "base_url_refused" in caplog.text
        assert "canary" not in caplog.text


async def test_patterns_of_now_decide_about_what_was_stored(tmp_path: Path) -> None:
    async with scene(tmp_path, "salesforce") as s:
        says(s, ACME)
        alice = await s.sign_in()
        await configure(s, apis=narrowed("other.my.salesforce.com"))
        assert await base_urls(s, alice) == []
        await configure(s, apis=narrowed("acme.my.salesforce.com"))
        assert await base_urls(s, alice) == [ACME]


async def test_without_attach_nothing_is_said_of_base_urls(tmp_path: Path) -> None:
    async with scene(tmp_path, "salesforce") as s:
        says(s, ACME)
        alice = await s.sign_in()
        configuration = yaml.safe_load((s.world.folder / "authserver.yaml").read_text())
        (notes,) = configuration["resources"]
        await s.world.reconfigure(resources=[notes | {"release": ["HandOut"]}])
        members = await given(s, alice)
        assert not {"apis", "apis_without_base_url"} & members.keys()


async def test_an_openid_provider_may_say_it_too(tmp_path: Path) -> None:
    async with scene(tmp_path, "generic-oidc", apis=[REST]) as s:
        says(s, ACME)
        alice = await s.sign_in()
        assert await base_urls(s, alice) == [f"{ACME}/v1"]
        says(s, OTHER)
        await refreshed(s, alice)
        assert await base_urls(s, alice) == [f"{OTHER}/v1"]


async def test_so_may_the_answer_of_an_exchange(tmp_path: Path) -> None:
    async def says_where(_: web.Request, usual: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(usual | {"instance_url": ACME})

    async with exchanging(tmp_path, apis=[REST]) as e:
        e.upstream.then_exchange(says_where)
        members = (await e.exchange()).json()
        assert [api["base_url"] for api in members["apis"]] == [f"{ACME}/v1"]
        # Another token is another answer, and what one of them said is not the other's.
        members = (await e.exchange(target_audience="orders")).json()
        assert (members["apis"], members["apis_without_base_url"]) == ([], UNPLACED)


# What is stored.


async def test_tokens_of_an_earlier_version_load_and_have_no_base_url() -> None:
    members = msgspec.json.decode(msgspec.json.encode(UpstreamTokens("a", "r", None, NOW, None)))
    del members["origins"]
    before = msgspec.json.decode(msgspec.json.encode(members), type=UpstreamTokens)
    assert before == UpstreamTokens("a", "r", None, NOW, None)
