"""Listings: rows of sessions, connections and users, page by page, as plain values.

No token is opened. Users and sessions appear under the pseudonyms of the audit trail; a user also
under the issuer and subject by which the upstream knows them.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from authserver.admin.opened import Opened
from authserver.admin.registrations import ConfiguredRegistrations
from authserver.admin.selection import Selection
from authserver.storage.contract import Row

PAGE: Final = 500

_USER: Final = (
    "u.upstream_issuer AS user_issuer, u.subject AS user_subject, u.blocked_at AS blocked_at"
)
SESSIONS: Final = (
    "SELECT sessions.tsid, sessions.user_id, sessions.client_id, sessions.resource,"
    " sessions.owner_namespace, sessions.owner_name, sessions.scope, sessions.created_at,"
    " sessions.expires_at, sessions.signed_in_at, sessions.sign_in_required_at,"
    f" {_USER} FROM (SELECT * FROM sessions WHERE {{condition}} AND tsid > ? ORDER BY tsid"
    " LIMIT {page}) sessions JOIN users u ON u.user_id = sessions.user_id ORDER BY sessions.tsid"
)
_KEY: Final = "user_id, owner_namespace, owner_name, upstream"
_CONNECTIONS: Final = (
    f"SELECT connections.user_id, connections.owner_namespace, connections.owner_name,"
    f" connections.upstream, connections.upstream_subject, connections.asked_scope,"
    f" connections.dead, connections.rejected, connections.upstream_issuer,"
    f" connections.authorization_server, connections.registered_client_id, {_USER}"
    f" FROM (SELECT * FROM connections WHERE {{condition}} AND ({_KEY}) > (?, ?, ?, ?)"
    f" ORDER BY {_KEY} LIMIT {{page}}) connections"
    " JOIN users u ON u.user_id = connections.user_id"
    " ORDER BY connections.user_id, connections.owner_namespace, connections.owner_name,"
    " connections.upstream"
)

Item = dict[str, Any]


async def session_rows(opened: Opened, selection: Selection) -> AsyncIterator[Row]:
    """Live sessions, in pages that are read as they are needed."""
    condition, values = selection.of_sessions(int(opened.clock()))
    sql, after = SESSIONS.format(condition=condition, page=PAGE), ""
    while rows := await opened.database.fetch_all(sql, *values, after):
        for row in rows:
            yield row
        after = rows[-1]["tsid"]


async def connection_rows(opened: Opened, selection: Selection) -> AsyncIterator[Row]:
    condition, values = selection.of_connections()
    sql = _CONNECTIONS.format(condition=condition, page=PAGE)
    after: tuple[str, ...] = ("", "", "", "")
    while rows := await opened.database.fetch_all(sql, *values, *after):
        for row in rows:
            yield row
        after = (rows[-1][0], rows[-1][1], rows[-1][2], rows[-1][3])


async def sessions(opened: Opened, selection: Selection) -> AsyncIterator[Item]:
    """Live sessions as items of a listing."""
    async for row in session_rows(opened, selection):
        yield {
            "session": opened.audit.pseudonym("session", row["tsid"]),
            **user_members(opened, row),
            "server": f"{row['owner_namespace']}/{row['owner_name']}",
            "client": row["client_id"],
            "resource": row["resource"],
            "scope": row["scope"],
            "created": moment(row["created_at"]),
            "signed_in": moment(row["signed_in_at"]),
            "expires": moment(row["expires_at"]),
            "state": _session_state(row),
        }


async def connections(opened: Opened, selection: Selection) -> AsyncIterator[Item]:
    """Connections as items of a listing."""
    configured = ConfiguredRegistrations(opened)
    async for row in connection_rows(opened, selection):
        yield {
            **user_members(opened, row),
            "server": f"{row['owner_namespace']}/{row['owner_name']}",
            "upstream": row["upstream"],
            "made_of": "",
            "account": row["upstream_subject"],
            "audience": "",
            "scope": row["asked_scope"],
            "expires": "",
            "registered_client": row["registered_client_id"],
            "state": connection_state(row, configured),
        }


def moment(seconds: int) -> str:
    """Unix seconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def user_members(opened: Opened, row: Row) -> Item:
    """Who the user of a row is."""
    return {
        "user": opened.audit.pseudonym("user", row["user_id"]),
        "issuer": row["user_issuer"],
        "subject": row["user_subject"],
    }


def _session_state(row: Row) -> str:
    if row["blocked_at"] is not None:
        return "user_blocked"
    return "live" if row["sign_in_required_at"] is None else "sign_in_required"


def connection_state(row: Row, configured: ConfiguredRegistrations) -> str:
    """Whether its tokens can be had, in one word."""
    if row["blocked_at"] is not None:
        return "user_blocked"
    if not configured.have(row):
        return "registration_not_configured"
    if row["rejected"]:
        return "rejected"
    return "dead" if row["dead"] else "live"
