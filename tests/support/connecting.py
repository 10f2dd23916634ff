"""A resource whose second upstream is connected when it is needed, and a person at a browser."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from demo.browser import Browser, Page
from demo.upstream import FakeUpstream
from tests.support.deployment import CALLBACK, Answer, Deployment, Pkce, deployed, log_in, walk
from tests.support.two_upstreams import configured, register_us, two_upstreams
from tests.support.workloads import NOTES_SERVER


@dataclass
class Scene:
    """One deployment with two upstreams; the second is WhenNeeded unless a test changes that."""

    world: Deployment
    first: FakeUpstream
    second: FakeUpstream

    async def exchange(self, jwt: str, upstream: str = "second", **changes: str) -> Answer:
        return await self.world.exchange(NOTES_SERVER, jwt, audience=upstream, **changes)

    async def link(self, jwt: str, upstream: str = "second") -> str:
        """The link in the refusal of an exchange."""
        answer = await self.exchange(jwt, upstream)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_grant"), answer.text
        url: str = answer.json()["connect_url"]
        assert url.startswith(f"{self.world.issuer}/connect/")
        return url

    def whose(self, answer: Answer, upstream: FakeUpstream | None = None) -> str:
        """Whose token an exchange released."""
        assert answer.status == 200, answer.text
        grants = (upstream or self.second).grants
        return grants.bearer(answer.json()["access_token"]).user.login


@asynccontextmanager
async def scene(folder: Path, **changes: Any) -> AsyncIterator[Scene]:
    async with two_upstreams() as (first, second):
        configuration = configured(first, second)
        for upstream in configuration["upstreams"]:
            upstream["scopes"] = ["openid", "profile"]
        (notes,) = configuration["resources"]
        notes["upstreams"] = ["first", {"name": "second", "connect": "WhenNeeded"}]
        async with deployed(folder, **(configuration | changes)) as world:
            register_us(world, first, second)
            yield Scene(world, first, second)


@dataclass
class Person:
    """Somebody at one browser, and the tokens of one client of theirs."""

    browser: Browser
    client_id: str
    jwt: str
    refresh_token: str


@asynccontextmanager
async def person(
    scene: Scene, user: str = "alice", client_name: str = "Test client"
) -> AsyncIterator[Person]:
    async with Browser(leave_at=CALLBACK) as browser:
        yield await signed_in(scene, browser, user, client_name)


async def signed_in(
    scene: Scene, browser: Browser, user: str = "alice", client_name: str = "Test client"
) -> Person:
    """A new client of `user`, whose sign-in took place at this browser."""
    world = scene.world
    client_id, pkce = (await world.register(client_name=client_name))["client_id"], Pkce()
    answer = await walk(browser, world.authorize_url(client_id, pkce), user)
    tokens = (await world.redeem(client_id, answer["code"], pkce)).json()
    return Person(browser, client_id, tokens["access_token"], tokens["refresh_token"])


async def press(browser: Browser, page: Page, decision: str) -> Page:
    return await browser.submit(page, press=("decision", decision))


async def to_confirmation(scene: Scene, browser: Browser, url: str, user: str = "alice") -> Page:
    """Open a link, go on, and sign in upstream as `user`: the page that names the account."""
    page = await press(browser, await browser.open(url), "connect")
    assert page.url.startswith(scene.second.issuer), page.text
    return await log_in(browser, page, user)


async def connected(scene: Scene, browser: Browser, url: str, user: str = "alice") -> Page:
    """The whole way by a link; the last page."""
    return await press(browser, await to_confirmation(scene, browser, url, user), "confirm")


def path_of(url: str) -> str:
    return urlsplit(url).path
