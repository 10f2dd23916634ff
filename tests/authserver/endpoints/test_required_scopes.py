"""A scope that an MCP server requires since yesterday reaches clients that never ask for it."""

import re
from pathlib import Path

import pytest

from authserver.config.loader import load
from chassis.process import ConfigurationError
from demo.browser import Browser, Page
from tests.support.deployment import NOTES, Deployment, Pkce, deployed, log_in
from tests.support.forged_tokens import claims_of
from tests.support.sign_in_steps import ask
from tests.support.workloads import NOTES_SERVER, reconfigure

NOW_REQUIRED = ["mcp", "notes:write"]
ALLOW = ("decision", "allow")


def _resource(**members: object) -> dict[str, object]:
    workload = {"namespace": "mcp-servers", "name": "notes"}
    return {"resource": NOTES, "workload": workload, "upstreams": ["acme"], **members}


async def _require(world: Deployment, **members: object) -> None:
    reconfigure(world, resources=[_resource(**members)])
    await world.server.reload(load(world.folder / "authserver.yaml"))


async def test_a_session_without_the_new_scope_is_sent_to_sign_in_and_keeps_its_refresh_token(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp")
        await _require(world, scopes=NOW_REQUIRED, requiredScopes=NOW_REQUIRED)
        for _ in range(2):
            refused = await world.refresh(alice.client_id, alice.refresh_token)
            assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
        # Taken back, the requirement has cost nobody anything.
        await _require(world, scopes=NOW_REQUIRED)
        answer = await world.refresh(alice.client_id, alice.refresh_token)
        assert (answer.status, answer.json()["scope"]) == (200, "mcp")


async def test_a_jwt_without_what_is_required_is_refused_with_a_challenge_for_it(
    tmp_path: Path,
) -> None:
    """At every door, so that a server behind the gateway does not have to look at scopes."""
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp")
        await _require(world, scopes=NOW_REQUIRED, requiredScopes=NOW_REQUIRED)
        refused = await world.exchange(NOTES_SERVER, alice.access_token)
        assert refused.status == 403
        assert refused.json()["error"] == "insufficient_scope"
        assert refused.json()["scope"] == "mcp notes:write"
        # The session has it; this token was narrowed (RFC 6749 section 6).
        bob = await world.signed_in("bob", scope="mcp")
        assert (await world.exchange(NOTES_SERVER, bob.access_token)).status == 200
        narrowed = await world.refresh(bob.client_id, bob.refresh_token, scope="mcp")
        refused = await world.exchange(NOTES_SERVER, narrowed.json()["access_token"])
        assert (refused.status, refused.json()["scope"]) == (403, "mcp notes:write")


async def test_a_sign_in_gets_what_is_required_whatever_its_client_asks_for(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await _require(world, scopes=[*NOW_REQUIRED, "more"], requiredScopes=NOW_REQUIRED)
        alice = await world.signed_in("alice", scope="mcp")
        assert claims_of(alice.access_token)["scope"] == "mcp notes:write"
        answer = await world.refresh(alice.client_id, alice.refresh_token)
        assert (answer.status, answer.json()["scope"]) == (200, "mcp notes:write")
        # What is not required is granted to those who ask for it.
        bob = await world.signed_in("bob", scope="more mcp")
        assert claims_of(bob.access_token)["scope"] == "more mcp notes:write"


async def test_the_page_names_what_is_granted_beyond_what_the_client_asked_for(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]

        async def shown(scope: str) -> list[str]:
            page = (await ask(world, world.authorize_url(client_id, Pkce(), scope=scope))).page
            (at_the_server,) = re.findall(
                r"<dt>Permissions at the server</dt>\s*<dd><code>(.*?)</code>", page.text
            )
            return str(at_the_server).split()

        await _require(world, scopes=[*NOW_REQUIRED, "more"])
        assert await shown("mcp") == ["mcp"]
        await _require(world, scopes=[*NOW_REQUIRED, "more"], requiredScopes=NOW_REQUIRED)
        assert await shown("mcp") == ["mcp", "notes:write"]
        assert await shown("more") == ["more", "mcp", "notes:write"]
        assert await shown("unknown") == ["mcp", "notes:write"]


async def test_a_remembered_consent_does_not_cover_what_is_required_since(tmp_path: Path) -> None:
    """A page that a person once answered is asked again with the new scope on it."""
    web = "https://app.example.com/callback"
    async with deployed(tmp_path) as world, Browser(leave_at=web) as browser:
        client_id = (await world.register(redirect_uris=[web]))["client_id"]

        async def asked() -> Page:
            url = world.authorize_url(client_id, Pkce(), redirect_uri=web, scope="mcp")
            return await browser.open(url)

        await log_in(browser, await browser.submit(await asked(), press=ALLOW), "alice")
        assert (await asked()).status is None, "this very question is remembered"
        await _require(world, scopes=NOW_REQUIRED, requiredScopes=NOW_REQUIRED)
        page = await asked()
        assert page.status == 200
        assert "mcp notes:write" in page.text


async def test_a_resource_requires_only_scopes_that_it_has(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        with pytest.raises(ConfigurationError) as refused:
            await _require(world, scopes=["mcp"], requiredScopes=NOW_REQUIRED)
        assert "notes:write is not in scopes" in refused.value.faults[0].problem
