"""Scopes of an upstream that a client asks for at authorize, because an API wanted them."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from demo.browser import Browser, Page
from tests.support.database_file import sql
from tests.support.deployment import CALLBACK, Deployment, Pkce, deployed, log_in, walk
from tests.support.forged_tokens import claims_of
from tests.support.sign_in_steps import ask, consent
from tests.support.workloads import NOTES_SERVER


async def permitting(world: Deployment, *scopes: str) -> None:
    configuration = yaml.safe_load((world.folder / "authserver.yaml").read_text())
    (upstream,) = configuration["upstreams"]
    words = {"scopeDescriptions": {"email": "See your e-mail address"}}
    await world.reconfigure(upstreams=[upstream | words | {"stepUpScopes": list(scopes)}])


class Client:
    """A client of alice, and her browser."""

    def __init__(self, world: Deployment, browser: Browser, client_id: str) -> None:
        self.world, self.browser, self.client_id = world, browser, client_id
        self.answer: dict[str, Any] = {}

    async def sign_in(self, decision: str = "allow", **changes: str) -> dict[str, str]:
        """Authorize; the parameters of the redirect, and, after a yes, tokens in `answer`."""
        pkce = Pkce()
        url = self.world.authorize_url(self.client_id, pkce, **changes)
        told = await walk(self.browser, url, "alice", decision)
        if "code" in told:
            self.answer = (await self.world.redeem(self.client_id, told["code"], pkce)).json()
        return told

    async def missing(self, scope: str) -> tuple[int, dict[str, Any]]:
        jwt = self.answer["access_token"]
        answer = await self.world.exchange(NOTES_SERVER, jwt, missing_scope=scope)
        return answer.status, answer.json()


async def client(world: Deployment, browser: Browser) -> Client:
    return Client(world, browser, (await world.register())["client_id"])


async def test_a_client_that_follows_the_challenge_gets_the_scope_and_does_not_loop(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        await permitting(world, "email")
        alice = await client(world, browser)
        await alice.sign_in(scope="mcp offline_access")
        status, refusal = await alice.missing("email")
        assert (status, refusal["scope"]) == (403, "mcp offline_access acme/email")
        page = await browser.open(
            world.authorize_url(alice.client_id, Pkce(), scope=refusal["scope"])
        )
        assert "<strong>Asked for now:</strong> See your e-mail address" in page.text
        assert page.text.count("Asked for now") == 1, "what is asked for anyway is not marked"
        await alice.sign_in(scope=refusal["scope"])
        status, released = await alice.missing("email")
        assert (status, released["scope"].split()) == (200, ["openid", "email"])
        # None of it is a scope of ours.
        assert alice.answer["scope"] == "mcp offline_access"
        assert claims_of(alice.answer["access_token"])["scope"] == "mcp offline_access"
        # Nor is anybody asked again: the browser goes straight back.
        page = await browser.open(
            world.authorize_url(alice.client_id, Pkce(), scope=refusal["scope"])
        )
        page = await browser.submit(page, press=("decision", "allow"))
        assert page.status is None


async def test_the_upstream_is_asked_for_exactly_what_is_permitted(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await permitting(world, "email", "50%")
        client_id = (await world.register())["client_id"]
        scope = "mcp acme/email acme/50%25 acme/vault acme/50% other/email email acme/ /email"
        asked = await ask(world, world.authorize_url(client_id, Pkce(), scope=scope))
        assert "vault" not in asked.page.text
        location = (await consent(world, asked)).headers["Location"]
        assert parse_qs(urlsplit(location).query)["scope"] == ["openid email 50%"]


async def test_without_a_wish_the_upstream_is_asked_as_ever(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await permitting(world, "email")
        asked = await ask(world, world.authorize_url((await world.register())["client_id"], Pkce()))
        assert "e-mail" not in asked.page.text
        location = (await consent(world, asked)).headers["Location"]
        assert parse_qs(urlsplit(location).query)["scope"] == ["openid"]


async def test_a_no_on_our_page_is_remembered_for_the_clients_sessions_alone(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        await permitting(world, "email", "profile")
        alice, other = await client(world, browser), await client(world, browser)
        await alice.sign_in()
        await other.sign_in()
        assert (await alice.sign_in("deny", scope="mcp acme/email"))["error"] == "access_denied"
        assert await alice.missing("email") == (403, {"error": "insufficient_scope"})
        assert (await alice.missing("profile"))[1]["scope"] == "mcp acme/profile"
        assert (await alice.missing("profile email"))[1] == {"error": "insufficient_scope"}
        assert (await other.missing("email"))[1]["scope"] == "mcp acme/email"
        assert (await alice.missing("openid"))[0] == 200


async def test_a_no_of_a_usual_request_declines_no_scope(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        await permitting(world, "email")
        alice = await client(world, browser)
        await alice.sign_in()
        await alice.sign_in("deny")
        assert (await alice.missing("email"))[1]["scope"] == "mcp acme/email"


async def test_what_the_upstream_did_not_grant_is_not_asked_for_again(tmp_path: Path) -> None:
    """The fake grants no scope that it does not know, as providers do where a person unticks it."""
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        await permitting(world, "vault")
        alice = await client(world, browser)
        await alice.sign_in()
        assert (await alice.missing("vault"))[1]["scope"] == "mcp acme/vault"
        await alice.sign_in(scope="mcp acme/vault")
        assert await alice.missing("vault") == (403, {"error": "insufficient_scope"})


async def test_the_wish_needs_a_consent_of_its_own(tmp_path: Path) -> None:
    web = "https://app.example.com/callback"
    async with deployed(tmp_path) as world, Browser(leave_at=web) as browser:
        await permitting(world, "email")
        registered = await world.register(redirect_uris=[web])

        async def page_for(scope: str) -> Page:
            url = world.authorize_url(
                registered["client_id"], Pkce(), redirect_uri=web, scope=scope
            )
            return await browser.open(url)

        page = await browser.submit(await page_for("mcp"), press=("decision", "allow"))
        await log_in(browser, page, "alice")
        assert (await page_for("mcp")).status is None, "this very question is remembered"
        page = await page_for("mcp acme/email")
        assert page.status == 200
        assert "See your e-mail address" in page.text


async def test_an_ordinary_sign_in_afterwards_takes_nothing_back(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        await permitting(world, "email")
        alice = await client(world, browser)
        await alice.sign_in(scope="mcp acme/email")
        visits = world.upstream.grants.counts["alice"].code_redemptions
        other = await client(world, browser)
        await other.sign_in()
        assert world.upstream.grants.counts["alice"].code_redemptions == visits
        assert (await alice.missing("email"))[0] == 200
        await permitting(world)
        await other.sign_in()
        assert world.upstream.grants.counts["alice"].code_redemptions == visits + 1, (
            "what is no longer permitted is not held on to"
        )


@pytest.mark.parametrize("stored", ["", "acme/email"])
async def test_rows_of_earlier_versions_have_declined_nothing(tmp_path: Path, stored: str) -> None:
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        await permitting(world, "email")
        alice = await client(world, browser)
        await alice.sign_in()
        await sql(tmp_path, "UPDATE sessions SET declined_scopes = ?", stored)
        status, refusal = await alice.missing("email")
        assert status == 403
        assert ("scope" in refusal) is (stored == "")
        assert refusal["error"] == "insufficient_scope"
