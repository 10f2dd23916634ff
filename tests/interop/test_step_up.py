"""A tool wants a scope of the upstream that its user has not granted: clients step up for it.

The server relays the sidecar's 403 `insufficient_scope`. Where it knows nothing of OAuth, the
gateway makes the challenge of what the API answers. A client that follows it opens a page on which
the new permission is marked, and its next call works. After a no nobody is asked again.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from demo.browser import Browser
from tests.interop.client import REDIRECT_URI
from tests.interop.driving import ClientProcess, client_process
from tests.interop.environments import each_of
from tests.interop.troubles import ALICE, LONG, outcome
from tests.interop.world import World, world
from tests.support.database_file import sql

pytestmark = pytest.mark.timeout(400)

MARKED = "<strong>Asked for now:</strong> See your e-mail address"
WORDS = {"email": "See your e-mail address", "vault": "Open your vault"}


STEPS_UP = each_of("official_2", "official_1", "fastmcp", "typescript_2", "mcp_remote")
# mcp-remote ends at an error of the authorization endpoint, as it does without a step-up.
SURVIVES_A_NO = STEPS_UP[:-1]


# Who tells the client: the server itself, or the gateway in front of one that cannot.
TELLERS = ["server", "gateway"]


@asynccontextmanager
async def _stepping_up(
    folder: Path, name: str, scope: str = "email", teller: str = "server"
) -> AsyncIterator[tuple[World, ClientProcess]]:
    """A client of a server whose tools want `scope`, and its user's one browser."""
    behind_gateway = teller == "gateway"

    def permit(here: World) -> None:
        def change(configuration: dict[str, Any]) -> None:
            (upstream,) = configuration["upstreams"]
            upstream |= {
                "scopes": ["openid", "profile"],
                "stepUpScopes": ["email", "vault"],
                "scopeDescriptions": WORDS,
            }

        here.configure(change)
        if behind_gateway:
            here.upstream.api_scope = scope
        else:
            here.program = "tests.interop.step_up_server"
            here.environment = {"STEP_UP_SCOPE": scope}

    async with (
        world(folder, LONG, before=permit, behind_gateway=behind_gateway) as here,
        Browser(leave_at=REDIRECT_URI) as browser,
        client_process(name, here.mcp_server, folder) as client,
    ):
        client.browser = browser
        yield here, client


async def _declined(here: World) -> list[str]:
    rows = await sql(here.layout.folder, "SELECT declined_scopes FROM sessions")
    return [str(declined) for (declined,) in rows if declined]


async def _challenges(here: World) -> int:
    """How often the sidecar has refused for a scope, as its metrics count it."""
    async with aiohttp.ClientSession() as http, http.get(f"{here.server.ops}/metrics") as answer:
        samples = await answer.text()
    found = re.findall(
        r'requests_total\{door="(?:hand_out|attach)",result="insufficient_scope"\} (\d+)', samples
    )
    return sum(int(count) for count in found)


@pytest.mark.parametrize("teller", TELLERS)
@pytest.mark.parametrize("name", STEPS_UP)
async def test_a_client_steps_up_within_the_call_and_its_user_sees_what_is_new(
    tmp_path: Path, name: str, teller: str
) -> None:
    async with _stepping_up(tmp_path, name, teller=teller) as (here, client):
        assert await client.whoami() == ALICE
        assert await _challenges(here) == 1
        usual, more = client.asked
        assert "Asked for now" not in usual
        assert "e-mail" not in usual
        assert MARKED in more
        assert more.count("Asked for now") == 1
        assert [await outcome(client) for _ in range(2)] == [ALICE] * 2
        assert (client.sign_ins, await _challenges(here)) == (2, 1)


@pytest.mark.parametrize("teller", TELLERS)
@pytest.mark.parametrize("name", SURVIVES_A_NO)
async def test_after_a_no_on_our_page_nobody_is_asked_again(
    tmp_path: Path, name: str, teller: str
) -> None:
    async with _stepping_up(tmp_path, name, teller=teller) as (here, client):
        client.decide = lambda page: "deny" if "Asked for now" in page else "allow"
        outcomes = [await outcome(client) for _ in range(3)]
        assert ALICE not in outcomes
        assert (client.sign_ins, len(client.asked)) == (2, 2)
        assert await _declined(here) == ["acme/email"]
        assert await _challenges(here) == 3, "a refusal with nothing to ask for is one too"


@pytest.mark.parametrize("teller", TELLERS)
@pytest.mark.parametrize("name", STEPS_UP)
async def test_what_the_upstream_did_not_grant_is_not_asked_for_again(
    tmp_path: Path, name: str, teller: str
) -> None:
    """The fake grants no scope that it does not know, as providers do where a person unticks it."""
    async with _stepping_up(tmp_path, name, "vault", teller) as (here, client):
        outcomes = [await outcome(client) for _ in range(3)]
        assert ALICE not in outcomes
        assert "Open your vault" in client.asked[1]
        assert client.sign_ins == 2
        assert "acme/vault" in await _declined(here)


@pytest.mark.interop
async def test_the_older_typescript_sdk_refreshes_instead_and_its_call_fails(
    tmp_path: Path,
) -> None:
    """typescript-sdk issue 2255; docs/reference/clients.md says so."""
    async with _stepping_up(tmp_path, "typescript_1") as (_, client):
        assert "403 after trying upscoping" in str(await outcome(client))
        assert client.sign_ins == 1
