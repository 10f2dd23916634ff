"""Who can obtain which upstream's tokens through which server: one row for each such right."""

from collections.abc import AsyncIterator
from typing import Final

from msgspec.structs import replace

from authserver.admin.opened import Opened
from authserver.admin.registrations import ConfiguredRegistrations
from authserver.admin.rows import PAGE, Item, moment
from authserver.admin.selection import Selection
from authserver.config.exchanged_upstreams import ExchangedUpstream
from authserver.storage.contract import Row
from chassis.spiffe_id import Workload

_KEY: Final = "user_id, owner_namespace, owner_name, upstream"
# A session's list of upstreams has spaces between; one without a list named all but exchanged ones.
_NAMED: Final = (
    "(s.upstreams IS NULL OR ' ' || s.upstreams || ' ' LIKE '% ' || connections.upstream || ' %')"
)
_OF_CONNECTION: Final = (
    "k.user_id, k.owner_namespace, k.owner_name, k.upstream, k.dead, k.rejected, k.needs_user_at,"
    " k.upstream_issuer, k.authorization_server, k.registered_client_id"
)
_SQL: Final = (
    f"SELECT {_OF_CONNECTION}, MAX(s.created_at) AS created,"
    " u.upstream_issuer AS user_issuer, u.subject AS user_subject, u.blocked_at,"
    " COUNT(*) AS sessions, MAX(s.signed_in_at) AS signed_in, MAX(s.expires_at) AS expires"
    f" FROM (SELECT * FROM connections WHERE {{condition}} AND ({_KEY}) > (?, ?, ?, ?)"
    f" AND EXISTS (SELECT 1 FROM sessions s WHERE s.user_id = connections.user_id"
    " AND s.owner_namespace = connections.owner_namespace"
    " AND s.owner_name = connections.owner_name AND s.ended_at IS NULL AND s.expires_at > ?"
    f" AND {{named}}) ORDER BY {_KEY} LIMIT {PAGE}) k"
    " JOIN users u ON u.user_id = k.user_id"
    " JOIN sessions s ON s.user_id = k.user_id AND s.owner_namespace = k.owner_namespace"
    " AND s.owner_name = k.owner_name AND s.ended_at IS NULL AND s.expires_at > ?"
    " AND {named_again}"
    f" GROUP BY {_OF_CONNECTION}, u.upstream_issuer, u.subject, u.blocked_at"
    " ORDER BY k.user_id, k.owner_namespace, k.owner_name, k.upstream"
)


_NAMES: Final = "s.upstreams IS NOT NULL AND ' ' || s.upstreams || ' ' LIKE '% ' || ? || ' %'"


async def who_can(opened: Opened, selection: Selection) -> AsyncIterator[Item]:
    """Each (user, server, upstream) that a live session names, and what is in its way, if anything.

    `state` is `can`, or why not: the first of the reasons in the order of the checks at a release.
    Behind the upstreams at which users sign in come those whose tokens are made of theirs.
    """
    servers = _Servers(opened)
    async for row in _rows(opened, selection, None):
        yield _item(opened, servers, row, row["upstream"])
    for upstream in opened.settings.upstreams:
        if not isinstance(upstream, ExchangedUpstream) or selection.upstream not in (
            None,
            upstream.name,
        ):
            continue
        parents = replace(selection, upstream=upstream.exchange.upstream)
        async for row in _rows(opened, parents, upstream.name):
            target = upstream.target
            yield _item(opened, servers, row, upstream.name) | {
                "made_of": row["upstream"],
                "audience": " ".join((*target.audiences, *target.resources)),
                "scope": " ".join(target.scopes),
            }


async def _rows(opened: Opened, selection: Selection, named: str | None) -> AsyncIterator[Row]:
    """Connections of live sessions that name `named`, or the connection's own upstream."""
    condition, values = selection.of_connections()
    names = () if named is None else (named,)
    sql = _SQL.format(
        condition=condition,
        named=_NAMED if named is None else _NAMES,
        named_again=_NAMED.replace("connections.", "k.") if named is None else _NAMES,
    )
    now, after = int(opened.clock()), ("", "", "", "")
    while rows := await opened.database.fetch_all(sql, *values, *after, now, *names, now, *names):
        for row in rows:
            yield row
        after = (rows[-1][0], rows[-1][1], rows[-1][2], rows[-1][3])


def _item(opened: Opened, servers: "_Servers", row: Row, upstream: str) -> Item:
    owner = Workload(row["owner_namespace"], row["owner_name"])
    absolute = opened.settings.lifetimes.refresh_token_absolute
    return {
        "user": opened.audit.pseudonym("user", row["user_id"]),
        "issuer": row["user_issuer"],
        "subject": row["user_subject"],
        "server": str(owner),
        "upstream": upstream,
        "made_of": "",
        "audience": "",
        "scope": "",
        "sessions": row["sessions"],
        "signed_in": moment(row["signed_in"]),
        "until": moment(row["expires"]),
        "needs_user": moment(_needs_user_at(row, absolute)),
        "state": servers.state(owner, upstream, row),
    }


def _needs_user_at(row: Row, absolute: int) -> int:
    """When the user is needed again, however busy the sessions are."""
    session_ends, upstream_ends = int(row["created"]) + absolute, row["needs_user_at"]
    return session_ends if upstream_ends is None else min(session_ends, int(upstream_ends))


class _Servers:
    """What the configuration of now lets a server obtain."""

    def __init__(self, opened: Opened) -> None:
        self._settings, self._registrations = opened.settings, ConfiguredRegistrations(opened)
        self._upstreams: dict[Workload, set[str]] = {}
        self._exchange_only = {
            one.name
            for one in opened.settings.upstreams
            if not isinstance(one, ExchangedUpstream) and one.exchange_only
        }
        for resource in opened.settings.resources:
            entry = resource.entry()
            self._upstreams.setdefault(entry.owner, set()).update(entry.upstreams)

    def state(self, owner: Workload, upstream: str, row: Row) -> str:
        denied = self._settings.denied_certificates.spiffe_ids
        if owner.spiffe_id(self._settings.trust_domain) in denied:
            return "certificate_denied"
        if not self._settings.allowed_workloads.admit(owner):
            return "workload_not_allowed"
        if owner not in self._upstreams:
            return "server_not_configured"
        if row["blocked_at"] is not None:
            return "user_blocked"
        if upstream in self._exchange_only:
            return "exchange_only"
        if upstream not in self._upstreams[owner]:
            return "upstream_not_permitted"
        if not self._registrations.have(row):
            return "registration_not_configured"
        if row["rejected"]:
            return "connection_rejected"
        return "connection_dead" if row["dead"] else "can"
