"""A listing of many sessions is read page by page: SQLite sorts none of them anew for a page."""

from pathlib import Path

import pytest

from authserver.admin.rows import PAGE, SESSIONS
from authserver.admin.selection import Selection
from chassis.spiffe_id import Workload
from tests.support.storage_fixtures import Place

NOTES = Workload("mcp-servers", "notes")


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(client_id="somebody"),
        Selection(owner=NOTES),
        Selection(upstream="acme"),
        Selection(owner=NOTES, client_id="somebody"),
    ],
    ids=["all", "client", "server", "upstream", "client of a server"],
)
async def test_a_page_of_sessions_comes_in_the_order_of_an_index(
    tmp_path: Path, selection: Selection
) -> None:
    condition, values = selection.of_sessions(1)
    sql = SESSIONS.format(condition=condition, page=PAGE)
    database = await Place(f"sqlite://{tmp_path}/tokenward.db").open()
    plan = await database.fetch_all(f"EXPLAIN QUERY PLAN {sql}", *values, "")
    await database.close()
    steps = [row["detail"] for row in plan]
    of_a_page = steps[: steps.index("SCAN sessions")]  # the page is then joined and put in order
    assert "tsid>?" in of_a_page[1]
    assert not any("TEMP B-TREE" in step for step in of_a_page)
