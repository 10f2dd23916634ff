"""Listings of tokens that an exchange made: for whom, for what and until when, never what they are.

Each is opened to read its end, which stands nowhere else.
"""

from collections.abc import AsyncIterator
from typing import Final

from authserver.admin.opened import Opened
from authserver.admin.registrations import ConfiguredRegistrations
from authserver.admin.rows import PAGE, Item, connection_state, moment, user_members
from authserver.admin.selection import Selection
from authserver.storage.connection_rows import EXCHANGED_COLUMNS, SealedConnections
from authserver.storage.contract import Row
from chassis.spiffe_id import Workload

_KEY: Final = "user_id, owner_namespace, owner_name, made_of, upstream, variant"
_COLUMNS: Final = ", ".join(f"e.{name}" for name in EXCHANGED_COLUMNS.split(", "))
_SQL: Final = (
    f"SELECT {_COLUMNS}, e.asked_audience, u.upstream_issuer AS user_issuer,"
    " u.subject AS user_subject, u.blocked_at AS blocked_at"
    f" FROM (SELECT * FROM exchanged_tokens WHERE {{condition}} AND ({_KEY}) > (?, ?, ?, ?, ?, ?)"
    f" AND generation > 0 ORDER BY {_KEY} LIMIT {PAGE}) e JOIN users u ON u.user_id = e.user_id"
    " ORDER BY e.user_id, e.owner_namespace, e.owner_name, e.made_of, e.upstream, e.variant"
)
_KEY_COLUMNS: Final = 6
_BESIDE: Final = 4  # columns of the query that are not those of the row itself


async def exchanged(opened: Opened, selection: Selection) -> AsyncIterator[Item]:
    """Stored tokens as items of a listing of connections, in pages that are read as needed."""
    configured = ConfiguredRegistrations(opened)
    condition, values = selection.of_exchanged()
    sql = _SQL.format(condition=condition)
    after: tuple[str, ...] = ("",) * _KEY_COLUMNS
    while rows := await opened.database.fetch_all(sql, *values, *after):
        for row in rows:
            yield _item(opened, row, configured)
        after = tuple(str(rows[-1][at]) for at in range(_KEY_COLUMNS))


def _item(opened: Opened, row: Row, configured: ConfiguredRegistrations) -> Item:
    token = SealedConnections(opened.keyring).open_exchanged_if_whole(row[:-_BESIDE])
    owner = Workload(row["owner_namespace"], row["owner_name"])
    item = {
        **user_members(opened, row),
        "server": str(owner),
        "upstream": row["upstream"],
        "made_of": row["made_of"],
        "account": row["upstream_subject"],
        "audience": row["asked_audience"],
        "scope": row["asked_scope"],
        "expires": "",
        "registered_client": row["registered_client_id"],
        "state": connection_state(row, configured),
    }
    if token is None:
        return item | {"state": "unreadable"}
    ends = token.tokens.expires_at
    return item | {
        "scope": row["asked_scope"] if token.tokens.scope is None else token.tokens.scope,
        "expires": "" if ends is None else moment(ends),
    }
