"""A user's grant at the upstream ends: every client opens a sign-in and gets back to work.

Nobody deletes a file or restarts anything. The upstream refuses refreshes with `invalid_grant`, as
it does after a user took our access away, and either lets access tokens live out their time or ends
them too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.layout import CLIENT_ID, Layout, plan
from demo.material import write_material
from demo.processes import Processes
from demo.stack import start_beside_upstream
from demo.upstream import USERS, FakeUpstream
from tests.interop.driving import CLIENTS, CallFailed, ClientProcess, client_process
from tests.interop.environments import each_of

pytestmark = pytest.mark.timeout(400)

ALICE = {"login": USERS["alice"].login, "id": USERS["alice"].id, "name": USERS["alice"].name}
SHORT, LONG = 2, 3600


@dataclass(frozen=True)
class World:
    """Everything on loopback, and the upstream in this process, to end grants in."""

    layout: Layout
    upstream: FakeUpstream

    @property
    def mcp_server(self) -> str:
        return self.layout.servers[0].resource


@asynccontextmanager
async def world(folder: Path, access_token_lifetime: int) -> AsyncIterator[World]:
    layout = plan(folder, ("notes",))
    write_material(layout)
    upstream = FakeUpstream(
        client_id=CLIENT_ID,
        client_secret=layout.client_secret.read_text().removesuffix("\n"),
        redirect_uri=layout.callback,
        access_token_lifetime=access_token_lifetime,
    )
    async with upstream.serve(port=layout.upstream_port), Processes(folder) as processes:
        await start_beside_upstream(layout, processes)
        yield World(layout, upstream)


async def _outcome(client: ClientProcess) -> object:
    """What one call came to: the account, or the error the client showed."""
    try:
        return await client.whoami()
    except CallFailed as failed:
        return str(failed)


@pytest.mark.parametrize("name", each_of(*CLIENTS))
async def test_a_refresh_token_that_is_over_leads_to_a_sign_in_within_the_call(
    tmp_path: Path, name: str
) -> None:
    async with (
        world(tmp_path, SHORT) as here,
        client_process(name, here.mcp_server, tmp_path) as client,
    ):
        assert await client.whoami() == ALICE
        here.upstream.grants.end("alice", access_tokens_too=False)

        outcome: object = ALICE
        while (outcome, client.sign_ins) == (ALICE, 1):  # the access token lives for two seconds
            outcome = await _outcome(client)

        assert here.upstream.grants.refused_refreshes > 0
        assert (outcome, client.sign_ins) == (ALICE, 2)
        assert [await _outcome(client) for _ in range(3)] == [ALICE] * 3
        assert client.sign_ins == 2


@pytest.mark.parametrize("name", each_of(*CLIENTS))
async def test_a_grant_that_ends_at_once_costs_one_failed_call_and_a_sign_in(
    tmp_path: Path, name: str
) -> None:
    """The tool runs with a token that looks alive; only its API knows better."""
    async with (
        world(tmp_path, LONG) as here,
        client_process(name, here.mcp_server, tmp_path) as client,
    ):
        assert await client.whoami() == ALICE
        here.upstream.grants.end("alice", access_tokens_too=True)

        first = await _outcome(client)
        assert "sign in again" in str(first)

        assert (await _outcome(client), client.sign_ins) == (ALICE, 2)
        assert [await _outcome(client) for _ in range(3)] == [ALICE] * 3
        assert client.sign_ins == 2
