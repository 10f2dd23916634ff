"""R7: what a user let one workload have stays with it, or with nobody, however the map changes.

The map knows names and no more: a workload that is deleted and made again under its name is the
same one to it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from authserver.config.loader import load
from authserver.config.watcher import ConfigWatcher
from authserver.oauth.resources import Resource, ResourceMap, collision_key
from chassis.spiffe_id import Workload
from demo.browser import Browser, Page
from tests.support.database_file import count
from tests.support.deployment import CALLBACK, NOTES, Deployment, Pkce, deployed, log_in, walk
from tests.support.workloads import (
    DENIED,
    NOTES_SERVER,
    TASKS_SERVER,
    audited,
    line,
    reconfigure,
    replica,
    verdict,
)

OTHER = "https://other.example.com/mcp"


def owned_by(workload: str, url: str = NOTES) -> dict[str, Any]:
    namespace, name = workload.split("/")
    owner = {"namespace": namespace, "name": name}
    return {"resource": url, "workload": owner, "upstreams": ["acme"], "scopes": ["mcp"]}


async def put(world: Deployment, *resources: dict[str, Any]) -> None:
    """Put this map in force, as the process does when its file changes."""
    reconfigure(world, resources=list(resources))
    await world.server.reload(load(world.folder / "authserver.yaml"))


async def denied_to_both(world: Deployment, jwt: str) -> None:
    for caller in (NOTES_SERVER, TASKS_SERVER):
        assert verdict(await world.exchange(caller, jwt)) == DENIED


async def test_a_moved_resource_is_denied_to_both_owners_on_live_connections_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        async with line(world) as old, line(world, TASKS_SERVER) as new:
            assert (await old.exchange(jwt)).status == 200
            await put(world, owned_by(TASKS_SERVER))
            with audited(caplog) as trail:
                assert verdict(await old.exchange(jwt)) == DENIED
                assert trail.reason == "caller_is_not_the_owner"
                assert verdict(await new.exchange(jwt)) == DENIED
                assert trail.reason == "no_such_session_of_this_token"
            assert (old.connections, new.connections) == (1, 1)


async def test_a_resource_that_is_removed_and_given_to_another_takes_no_session_along(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        await put(world, owned_by(TASKS_SERVER, OTHER))
        assert verdict(await sidecar.exchange(jwt)) == DENIED
        await put(world, owned_by(TASKS_SERVER))
        await denied_to_both(world, jwt)
        # Who signs in now is asked about the new owner, and only that one is served.
        again = (await world.signed_in()).access_token
        assert (await world.exchange(TASKS_SERVER, again)).status == 200
        assert verdict(await sidecar.exchange(again)) == DENIED


@pytest.mark.parametrize("meanwhile", ["removed", "another's"])
async def test_a_resource_that_comes_back_to_its_owner_is_its_owners_again(
    tmp_path: Path, meanwhile: str
) -> None:
    """What the map cannot see: whether the workload of this name is still the same one."""
    async with deployed(tmp_path) as world, line(world) as sidecar:
        alice = await world.signed_in()
        await put(world, owned_by(TASKS_SERVER, OTHER if meanwhile == "removed" else NOTES))
        assert verdict(await sidecar.exchange(alice.access_token)) == DENIED
        await put(world, owned_by(NOTES_SERVER))
        assert (await sidecar.exchange(alice.access_token)).status == 200


async def test_a_replica_that_has_not_read_the_new_map_yet_opens_nothing(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, replica(world) as late:
        old = (await world.signed_in()).access_token
        await put(world, owned_by(TASKS_SERVER))
        new = (await world.signed_in()).access_token
        assert (await world.exchange(TASKS_SERVER, new)).status == 200
        for caller in (NOTES_SERVER, TASKS_SERVER):
            assert verdict(await late.exchange(caller, new)) == DENIED
        await denied_to_both(world, old)


async def test_a_signed_in_user_goes_upstream_again_for_the_new_owner(tmp_path: Path) -> None:
    """What was stored for the old owner is not lent to the new one."""
    async with deployed(tmp_path) as world, Browser(leave_at=CALLBACK) as browser:
        client_id = (await world.register())["client_id"]
        assert "code" in await walk(browser, world.authorize_url(client_id, Pkce()), "alice")
        for change, logs_in in ((owned_by(NOTES_SERVER), False), (owned_by(TASKS_SERVER), True)):
            await put(world, change)
            page = await browser.open(world.authorize_url(client_id, Pkce()))
            page = await browser.submit(page, press=("decision", "allow"))
            assert (page.status is not None) is logs_in


@pytest.mark.parametrize(
    "claimed",
    [
        NOTES, f"{NOTES}/", "https://NOTES.example.com/mcp", "HTTPS://notes.example.com/mcp",
        "https://notes.example.com:443/mcp", "https://notes.example.com/%6Dcp",
        "https://notes.example.com/%6dcp",
    ],
)  # fmt: skip
async def test_a_second_claim_to_a_resource_changes_nothing_for_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, claimed: str
) -> None:
    """R8: the map is refused as a whole, and the one in force stays."""
    async with deployed(tmp_path) as world, line(world) as sidecar:
        following = ConfigWatcher(
            tmp_path / "authserver.yaml",
            load(tmp_path / "authserver.yaml"),
            world.server.reload,
            world.server.reloaded,
        )
        jwt = (await world.signed_in()).access_token
        claim = owned_by("other/squatter", claimed)
        reconfigure(world, resources=[owned_by(NOTES_SERVER), claim])
        assert not await following.poll()
        (said,) = [record for record in caplog.records if record.msg == "configuration_kept"]
        assert vars(said)["fields"]["path"] == "resources[1].resource"
        assert (await sidecar.exchange(jwt)).status == 200


@pytest.mark.parametrize(
    ("one", "other"),
    [("~", "%7E"), ("~", "%7e"), ("%2f", "%2F"), ("%C3%A9", "%c3%a9")],
)
def test_spellings_of_one_resource_are_told_by_their_escapes_too(one: str, other: str) -> None:
    assert collision_key(f"https://a.example/{one}") == collision_key(f"https://a.example/{other}")


def test_an_escape_that_means_something_else_is_another_resource() -> None:
    assert collision_key("https://a.example/b/c") != collision_key("https://a.example/b%2Fc")
    with pytest.raises(ValueError, match="stands here twice"):
        ResourceMap(
            Resource(f"https://a.example/{name}", Workload("a", "b"), ("acme",), ())
            for name in ("~", "%7E")
        )


# Between the request and its code.


@dataclass
class Begun:
    """A sign-in that waits for its user."""

    browser: Browser
    page: Page

    async def allow(self) -> Page:
        return await self.browser.submit(self.page, press=("decision", "allow"))


@asynccontextmanager
async def begun(world: Deployment) -> AsyncIterator[Begun]:
    client_id = (await world.register())["client_id"]
    async with Browser(leave_at=CALLBACK) as browser:
        yield Begun(browser, await browser.open(world.authorize_url(client_id, Pkce())))


def answered(page: Page) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(page.url).query))


Change = Callable[[Deployment], Any]


def moved(world: Deployment) -> Any:
    return put(world, owned_by(TASKS_SERVER))


def removed(world: Deployment) -> Any:
    return put(world, owned_by(TASKS_SERVER, OTHER))


@pytest.mark.parametrize("change", [moved, removed])
async def test_a_yes_to_the_old_owner_sends_nobody_upstream_after_the_change(
    tmp_path: Path, change: Change
) -> None:
    async with deployed(tmp_path) as world, begun(world) as sign_in:
        assert NOTES_SERVER in sign_in.page.text
        await change(world)
        page = await sign_in.allow()
        assert page.status is None, "back at the client, without a login upstream"
        assert answered(page)["error"] == "invalid_target"


@pytest.mark.parametrize("change", [moved, removed])
async def test_a_login_that_ends_after_the_change_stores_nothing(
    tmp_path: Path, change: Change
) -> None:
    async with deployed(tmp_path) as world, begun(world) as sign_in:
        login = await sign_in.allow()
        await change(world)
        page = await log_in(sign_in.browser, login, "alice")
        assert answered(page)["error"] == "invalid_target"
        assert "code" not in answered(page)
        for table in ("users", "sessions", "connections", "codes"):
            assert await count(tmp_path, table) == 0


# What is stored for the old owner.


async def test_what_a_former_owner_held_is_purged_after_a_week(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice, sweep = await world.signed_in(), world.server.housekeeping.sweep
        await sweep()
        await put(world, owned_by(TASKS_SERVER))
        for days, left in ((0, 1), (6, 1), (2, 0)):
            world.clock.advance(days * 86400)
            await sweep()
            await sweep()  # the first one ends sessions, the second deletes what is over
            assert await count(tmp_path, "connections") == left
        await put(world, owned_by(NOTES_SERVER))
        refused = await world.refresh(alice.client_id, alice.refresh_token)
        assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")


# Between the code and what follows.


async def test_a_code_of_the_old_owner_ends_in_a_token_that_opens_nothing(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client_id, pkce = (await world.register())["client_id"], Pkce()
        code = await world.code(client_id, pkce)
        await put(world, owned_by(TASKS_SERVER))
        answer = await world.redeem(client_id, code, pkce)
        await denied_to_both(world, answer.json()["access_token"])


async def test_a_refresh_for_a_resource_that_changed_hands_asks_for_a_new_sign_in(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in()
        await put(world, owned_by(TASKS_SERVER))
        refused = await world.refresh(alice.client_id, alice.refresh_token)
        assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
        # A slip in the map costs no session: the token was not used up.
        await put(world, owned_by(NOTES_SERVER))
        assert (await world.refresh(alice.client_id, alice.refresh_token)).status == 200
