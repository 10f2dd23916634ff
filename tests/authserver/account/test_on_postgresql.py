"""The statements behind a person's own pages on PostgreSQL, each by the door that runs it."""

import asyncio
from pathlib import Path

import yaml

from tests.authserver.account.test_connect import cookies_of, hidden, is_over, post
from tests.authserver.account.test_connections import end, page_of
from tests.authserver.storage.conftest import postgresql  # noqa: F401 - a fixture
from tests.support.connecting import person, scene, to_confirmation
from tests.support.deployment import Deployment, Pkce, walk
from tests.support.postgresql import PostgresqlServer, starts_postgresql
from tests.support.workloads import DENIED, verdict


@starts_postgresql
async def test_connect_see_decline_and_end(
    tmp_path: Path,
    postgresql: PostgresqlServer,  # noqa: F811 - the fixture
) -> None:
    storage = {
        "url": await postgresql.create_database(),
        "passwordFile": str(postgresql.password_file),
    }
    async with scene(tmp_path, storage=storage) as s, person(s) as alice:
        url = await s.link(alice.jwt)
        pages = [await to_confirmation(s, alice.browser, url, user) for user in ("alice", "bob")]
        cookie = cookies_of(alice.browser, s.world.issuer)
        answers = await asyncio.gather(
            *(
                post(s, "/connect/confirm", hidden(page) | {"decision": "confirm"}, cookie)
                for page in pages
            )
        )
        assert sorted(answer.status for answer in answers) == [200, 400]
        assert is_over(await alice.browser.open(url))
        assert s.whose(await s.exchange(alice.jwt)) in ("alice", "bob")
        assert "second: connected" in (await page_of(s, alice.browser)).text

        await permit_email(s.world)
        url = s.world.authorize_url(alice.client_id, Pkce(), scope="mcp second/email")
        assert (await walk(alice.browser, url, "alice", "deny"))["error"] == "access_denied"
        refused = await s.exchange(alice.jwt, missing_scope="email")
        assert (refused.status, refused.json()) == (403, {"error": "insufficient_scope"})

        assert (await end(s, alice.browser, "disconnect")).status == 303
        assert verdict(await s.exchange(alice.jwt, "first")) == DENIED
        assert (await end(s, alice.browser, "sign_out_everywhere")).status == 303
        assert "Sign in to see" in (await page_of(s, alice.browser)).text


async def permit_email(world: Deployment) -> None:
    upstreams = yaml.safe_load((world.folder / "authserver.yaml").read_text())["upstreams"]
    await world.reconfigure(upstreams=[one | {"stepUpScopes": ["email"]} for one in upstreams])
