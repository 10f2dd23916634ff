"""A signed-in browser and remembered consent: as much comfort as A14 and A18 allow, no more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from yarl import URL

from demo.browser import Browser, Page
from tests.fakes.web_site import web_site
from tests.support.database_file import count, sql
from tests.support.deployment import NOTES, TASKS, Deployment, Pkce, deployed, log_in
from tests.support.two_upstreams import configured, register_us, two_upstreams

WEB = "https://app.example.com/callback"
LOCAL = "http://127.0.0.1:9999/callback"
ARCHIVE = "https://archive.example.com/mcp"


@asynccontextmanager
async def world_of(folder: Path, **changes: Any) -> AsyncIterator[Deployment]:
    """Two workloads; the first one answers for two resources."""

    def resource(url: str, name: str) -> dict[str, object]:
        workload = {"namespace": "mcp-servers", "name": name}
        return {"resource": url, "workload": workload, "upstreams": ["acme"], "scopes": ["mcp"]}

    resources = [resource(NOTES, "notes"), resource(TASKS, "tasks"), resource(ARCHIVE, "notes")]
    async with deployed(folder, **({"resources": resources} | changes)) as world:
        yield world


async def web_client(world: Deployment, **metadata: object) -> str:
    found = await world.register(redirect_uris=[WEB, f"{WEB}/two", LOCAL], **metadata)
    return str(found["client_id"])


async def allow(browser: Browser, world: Deployment, client_id: str, **changes: str | None) -> Page:
    """Open a request, allow it, log in upstream if that is asked for; where it ends."""
    url = world.authorize_url(client_id, Pkce(), **({"redirect_uri": WEB} | changes))
    page = await browser.open(url)
    if page.status is None:
        return page
    page = await browser.submit(page, press=("decision", "allow"))
    return await log_in(browser, page, "alice") if page.status is not None else page


def asks_for_consent(page: Page) -> bool:
    return page.status == 200 and 'name="decision"' in page.text


async def visits(world: Deployment) -> int:
    return world.upstream.grants.counts["alice"].code_redemptions


async def test_a_second_client_needs_consent_and_no_second_login(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        first, second = await web_client(world), await web_client(world)
        assert "code" in (await allow(browser, world, first)).query
        page = await browser.open(world.authorize_url(second, Pkce(), redirect_uri=WEB))
        assert asks_for_consent(page), "the upstream login of one client is no consent to another"
        page = await browser.submit(page, press=("decision", "allow"))
        assert page.status is None
        assert "code" in page.query
        assert await visits(world) == 1


async def test_a_second_server_of_the_workload_needs_consent_and_no_login(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        client_id, pkce = await web_client(world), Pkce()
        await allow(browser, world, client_id)
        url = world.authorize_url(client_id, pkce, redirect_uri=WEB, resource=ARCHIVE)
        page = await browser.open(url)
        assert asks_for_consent(page)
        page = await browser.submit(page, press=("decision", "allow"))
        assert await visits(world) == 1
        tokens = await world.redeem(client_id, page.query["code"], pkce, redirect_uri=WEB)
        released = await world.exchange("mcp-servers/notes", tokens.json()["access_token"])
        assert released.status == 200


async def test_another_workload_gets_no_token_of_the_first_ones(tmp_path: Path) -> None:
    """A connection has one owner, so its tokens are never copied: the user goes upstream once."""
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        client_id = await web_client(world)
        await allow(browser, world, client_id)
        assert "code" in (await allow(browser, world, client_id, resource=TASKS)).query
        assert await visits(world) == 2
        assert await count(tmp_path, "users") == 1
        assert await count(tmp_path, "connections") == 2


async def test_the_same_request_is_asked_once(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        client_id = await web_client(world)
        await allow(browser, world, client_id)
        page = await browser.open(world.authorize_url(client_id, Pkce(), redirect_uri=WEB))
        assert page.status is None
        assert set(page.query) == {"code", "state", "iss"}


CHANGES: dict[str, dict[str, str | None]] = {
    "redirect URI": {"redirect_uri": f"{WEB}/two"},
    "more scope": {"scope": "mcp offline_access"},
    "less scope": {"scope": "offline_access"},
    "resource": {"resource": ARCHIVE},
    "asked to ask": {"prompt": "consent"},
    "asked to sign in": {"prompt": "login"},
    "asked to choose": {"prompt": "select_account"},
    "too long ago": {"max_age": "0"},
    "a local application": {"redirect_uri": LOCAL},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_any_other_request_is_asked_again(
    tmp_path: Path, change: dict[str, str | None]
) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        client_id = await web_client(world)
        await allow(browser, world, client_id)
        world.clock.advance(1)
        url = world.authorize_url(client_id, Pkce(), **({"redirect_uri": WEB} | change))
        assert asks_for_consent(await browser.open(url))


async def test_a_local_application_is_asked_about_every_time(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=LOCAL) as browser:
        client_id = await web_client(world)
        for _ in range(2):
            url = world.authorize_url(client_id, Pkce(), redirect_uri=LOCAL)
            page = await browser.open(url)
            assert asks_for_consent(page)
            page = await browser.submit(page, press=("decision", "allow"))
            if page.status is not None:
                await log_in(browser, page, "alice")


async def test_a_consent_of_one_user_is_none_of_another(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        client_id = await web_client(world)
        for user in ("alice", "bob"):
            async with Browser(leave_at=WEB) as browser:
                url = world.authorize_url(client_id, Pkce(), redirect_uri=WEB)
                page = await browser.open(url)
                assert asks_for_consent(page)
                page = await browser.submit(page, press=("decision", "allow"))
                await log_in(browser, page, user)


async def test_a_client_that_describes_itself_otherwise_is_asked_about_again(
    tmp_path: Path,
) -> None:
    async with web_site() as site, world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        client_id = f"{site.url}/c.json"
        document = {"client_id": client_id, "client_name": "One", "redirect_uris": [WEB]}
        site.put("/c.json", document, Cache_Control="no-store")
        await allow(browser, world, client_id)
        url = world.authorize_url(client_id, Pkce(), redirect_uri=WEB)
        assert (await browser.open(url)).status is None
        site.put("/c.json", document | {"client_name": "Two"}, Cache_Control="no-store")
        assert asks_for_consent(await browser.open(url))


async def test_revoking_a_token_forgets_the_consent(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        client_id, pkce = await web_client(world), Pkce()
        url = world.authorize_url(client_id, pkce, redirect_uri=WEB)
        await allow(browser, world, client_id)
        page = await browser.open(url)
        tokens = await world.redeem(client_id, page.query["code"], pkce, redirect_uri=WEB)
        token = tokens.json()["refresh_token"]
        await world.call("POST", "/oauth/revoke", data={"client_id": client_id, "token": token})
        assert asks_for_consent(await browser.open(url))


async def test_a_consent_is_remembered_for_its_time_only(tmp_path: Path) -> None:
    lifetimes = {"rememberedConsent": "1h", "browserSession": "2h"}
    async with (
        world_of(tmp_path, lifetimes=lifetimes) as world,
        Browser(leave_at=WEB) as browser,
    ):
        client_id = await web_client(world)
        await allow(browser, world, client_id)
        url = world.authorize_url(client_id, Pkce(), redirect_uri=WEB)
        world.clock.advance(3599)
        assert (await browser.open(url)).status is None
        world.clock.advance(2)
        assert asks_for_consent(await browser.open(url))


async def test_a_browser_session_lasts_its_time_only(tmp_path: Path) -> None:
    async with (
        world_of(tmp_path, lifetimes={"browserSession": "1h"}) as world,
        Browser(leave_at=WEB) as browser,
    ):
        client_id = await web_client(world)
        await allow(browser, world, client_id)
        world.clock.advance(3601)
        await allow(browser, world, client_id)
        assert await visits(world) == 2
        await world.server.housekeeping.sweep()
        assert await count(tmp_path, "browser_sessions") == 1


async def test_a_connection_that_died_sends_the_user_upstream_again(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        client_id = await web_client(world)
        await allow(browser, world, client_id)
        await sql(tmp_path, "UPDATE connections SET dead = 1")
        await allow(browser, world, client_id)
        assert await visits(world) == 2


async def test_scopes_an_operator_added_send_the_user_upstream_again(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        client_id = await web_client(world)
        await allow(browser, world, client_id)
        await sql(tmp_path, "UPDATE connections SET asked_scope = 'openid other'")
        await allow(browser, world, client_id)
        assert await visits(world) == 2


async def test_a_new_sign_in_has_a_new_session_handle(tmp_path: Path) -> None:
    """Whoever planted a handle before the login holds nothing after it (A18)."""
    async with world_of(tmp_path) as world:
        client_id, handles = await web_client(world), set()
        for _ in range(2):
            async with Browser(leave_at=WEB) as browser:
                planted = "tokenward-session=planted; Path=/; HttpOnly"
                browser.cookies.take(_url(world), planted)
                await allow(browser, world, client_id)
                (value,) = [
                    cookie.value
                    for cookie in browser.cookies.sent_to(_url(world))
                    if cookie.name == "tokenward-session"
                ]
                handles.add(value)
        assert len(handles - {"planted"}) == 2
        assert not any(handle.encode() in world.stored_bytes() for handle in handles)


async def test_a_page_made_for_one_user_does_not_connect_another(tmp_path: Path) -> None:
    """Somebody else signed in at this browser between the question and the answer."""
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        first, second = await web_client(world), await web_client(world)
        await allow(browser, world, first)
        page = await browser.open(world.authorize_url(second, Pkce(), redirect_uri=WEB))
        await sql(tmp_path, "DELETE FROM browser_sessions")
        page = await browser.submit(page, press=("decision", "allow"))
        assert page.status == 200
        assert urlsplit(page.url).path == "/authorize", "back to the upstream"


async def test_another_account_can_be_used_instead(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, Browser(leave_at=WEB) as browser:
        first, second = await web_client(world), await web_client(world)
        await allow(browser, world, first)
        page = await browser.open(world.authorize_url(second, Pkce(), redirect_uri=WEB))
        page = await browser.submit(page, press=("decision", "allow_other"))
        page = await log_in(browser, page, "bob")
        assert "code" in page.query
        assert await count(tmp_path, "users") == 2


async def test_silence_is_answered_for_clients_an_operator_vouches_for(tmp_path: Path) -> None:
    static = {"clientId": "app", "redirectUris": [WEB], "tokenEndpointAuthMethod": "none"}
    async with (
        world_of(tmp_path, clients={"static": [static]}) as world,
        Browser(leave_at=WEB) as browser,
    ):
        silent = world.authorize_url("app", Pkce(), redirect_uri=WEB, prompt="none")
        assert (await browser.open(silent)).query["error"] == "login_required"
        await allow(browser, world, "app")
        assert "code" in (await browser.open(silent)).query
        more = silent.replace("scope=mcp", "scope=mcp+offline_access")
        answer = (await browser.open(more)).query
        assert (answer["error"], answer["iss"]) == ("consent_required", world.issuer)


async def test_only_the_missing_upstream_is_visited(tmp_path: Path) -> None:
    """A linked upstream that failed before is asked again; the one that worked is not."""
    async with (
        two_upstreams() as (first, second),
        deployed(tmp_path, **configured(first, second)) as world,
        Browser(leave_at=WEB) as browser,
    ):
        register_us(world, first, second)
        url = world.authorize_url(await web_client(world), Pkce(), redirect_uri=WEB)
        page = await browser.submit(await browser.open(url), press=("decision", "allow"))
        page = await log_in(browser, await log_in(browser, page, "alice"), "bob")
        assert "code" in page.query
        await sql(tmp_path, "UPDATE connections SET dead = 1 WHERE upstream = 'second'")
        page = await browser.open(url)
        assert page.url.startswith(second.issuer), "the consent stands; only the link is missing"
        assert "code" in (await log_in(browser, page, "bob")).query
        assert first.grants.counts["alice"].code_redemptions == 1
        assert second.grants.counts["bob"].code_redemptions == 2


def _url(world: Deployment) -> URL:
    return URL(world.issuer)
