"""Every client gets back to a tool call as docs/reference/clients.md says, trouble by trouble.

What a cell says is the most that may fail, and how often its user signs in. Nobody deletes a file
or restarts a client. test_dead_grants.py does the same with a grant that ended.
"""

from pathlib import Path

import pytest

from tests.interop.driving import CLIENTS, client_process
from tests.interop.environments import ROOT
from tests.interop.troubles import ALICE, LONG, RACE, TROUBLES, Recovery, refresh_race
from tests.interop.world import world
from tests.support.pages import tables_of

pytestmark = [pytest.mark.timeout(400), pytest.mark.interop]

COLUMNS = (
    "official_2",
    "official_1",
    "fastmcp",
    "typescript_1",
    "typescript_2",
    "mcp_remote",
    "inspector",
)
WORDS = {
    "goes on": Recovery(0, 0),
    "signs in": Recovery(0, 1),
    "a call fails": Recovery(1, 0),
    "a call fails, then signs in": Recovery(1, 1),
}
(TABLE,) = (
    rows for _, rows in tables_of(ROOT / "docs/reference/clients.md") if rows[0][0] == "trouble"
)
CELLS = [
    pytest.param(trouble, name, WORDS[cell], id=f"{name}: {trouble}")
    for trouble, *cells in TABLE[1:]
    for name, cell in zip(COLUMNS, cells, strict=True)
]


def _check(found: Recovery, stated: Recovery) -> None:
    # Whether the first call meets a connection that is gone is a matter of moments.
    assert found.failed <= max(stated.failed, 1)
    assert found.sign_ins == stated.sign_ins


def test_the_page_names_every_trouble_and_client() -> None:
    assert [row[0] for row in TABLE[1:]] == [*TROUBLES, RACE]
    assert set(COLUMNS) == set(CLIENTS)


@pytest.mark.parametrize(("trouble", "name", "stated"), CELLS)
async def test_a_client_comes_back(
    tmp_path: Path, trouble: str, name: str, stated: Recovery
) -> None:
    happening, upstream_seconds = TROUBLES.get(trouble, (None, LONG))
    async with world(tmp_path, upstream_seconds) as here:
        if happening is None:
            _check(await refresh_race(here, name, tmp_path), stated)
            return
        async with client_process(name, here.mcp_server, tmp_path) as client:
            assert await client.whoami() == ALICE
            _check(await happening(here, client), stated)
