"""The database: keys, what its users lost, and whether an authserver works on it."""

from collections.abc import AsyncIterator
from typing import Final

from authserver.admin.doctor.finding import Finding
from authserver.admin.opened import Opened
from authserver.live_config import LiveConfig
from authserver.storage.engines.url import PostgresqlLocation, read_location
from authserver.storage.key_rotation import KeyRotation
from authserver.upstream.http_client import UpstreamHttp

_SKEW_SECONDS: Final = 5
_LEASE_OVERDUE_SECONDS: Final = 300
_EVENT_OVERDUE_SECONDS: Final = 300
# Fewer dead connections than this are users who left, not a broken upstream.
_MIN_DEAD: Final = 3


async def storage_findings(opened: Opened) -> AsyncIterator[Finding]:
    """Raises StorageUnavailable."""
    for check in (_keys, _servers, _registrations, _connections, _authserver, _clock):
        async for finding in check(opened):
            yield finding


async def _keys(opened: Opened) -> AsyncIterator[Finding]:
    ours = opened.keyring.fingerprints
    for row in await opened.database.fetch_all("SELECT key_id, fingerprint FROM key_checks"):
        if row["key_id"] in ours and ours[row["key_id"]] != row["fingerprint"]:
            yield Finding(
                "encryption_key_swapped", "encryptionKeys",
                f"{row['key_id']} is not the key that this database knows under that id",
                "put the right file back, or give the new key a new id",
            )  # fmt: skip
    for missing in sorted(await KeyRotation(opened.database).key_ids() - set(ours)):
        yield Finding(
            "encryption_key_missing", "encryptionKeys",
            f"{missing} is missing, and values are still sealed under it",
            "put it back behind the first one and run `rewrap`, or `forget-key` if it is lost",
        )  # fmt: skip


async def _servers(opened: Opened) -> AsyncIterator[Finding]:
    configured = {(one.entry().url, str(one.entry().owner)) for one in opened.settings.resources}
    rows = await opened.database.fetch_all(
        "SELECT resource, owner_namespace, owner_name, COUNT(*) AS n FROM sessions"
        " WHERE ended_at IS NULL AND expires_at > ? GROUP BY resource, owner_namespace, owner_name",
        int(opened.clock()),
    )
    for row in rows:
        owner = f"{row['owner_namespace']}/{row['owner_name']}"
        if (row["resource"], owner) not in configured:
            yield Finding(
                "sessions_of_no_server", "resources",
                f"{row['n']} session(s) are for {row['resource']} of {owner}, which is not"
                " configured; they end after a week",
                "put the resource back, or end them with `tokenward sessions end --server`",
            )  # fmt: skip


async def _registrations(opened: Opened) -> AsyncIterator[Finding]:
    live = LiveConfig(opened.settings, opened.database, UpstreamHttp(), opened.clock)
    named, absent = live.binding.named(), live.absent_registrations
    async for registered in absent.of_connections():
        if registered not in named:
            upstream, registration = registered
            users = await absent.users(registered, int(opened.clock()))
            yield Finding(
                "registration_not_configured", f"upstreams[{upstream}]",
                f"{users} user(s) must sign in again: their tokens were given to client"
                f" {registration.client_id or '(unknown)'} of {registration.authorization_server}",
                "put that client back, or name it in `former`",
            )  # fmt: skip


async def _connections(opened: Opened) -> AsyncIterator[Finding]:
    rows = await opened.database.fetch_all(
        "SELECT upstream, COUNT(*) AS n, SUM(dead) AS dead FROM connections GROUP BY upstream"
    )
    for row in rows:
        if row["dead"] >= _MIN_DEAD and 2 * row["dead"] > row["n"]:
            yield Finding(
                "connections_dead", f"upstreams[{row['upstream']}]",
                f"{row['dead']} of {row['n']} connections are dead",
                "look at the audit trail and the upstream: were our client's grants ended there?",
            )  # fmt: skip


async def _authserver(opened: Opened) -> AsyncIterator[Finding]:
    now = int(opened.clock())
    lease = await opened.database.fetch_one("SELECT MAX(expires_at) AS at FROM leases")
    if lease is not None and lease["at"] is not None and now - lease["at"] > _LEASE_OVERDUE_SECONDS:
        yield Finding(
            "no_authserver_runs", "storage", "no authserver has worked on this database lately",
            "start one, or compare `storage.url` with that of the running ones",
        )  # fmt: skip
    event = await opened.database.fetch_one("SELECT MIN(written_at) AS at FROM operator_events")
    if event is not None and event["at"] is not None and now - event["at"] > _EVENT_OVERDUE_SECONDS:
        yield Finding(
            "operator_events_wait", "storage", "no authserver has taken operators' events to its"
            " audit trail for minutes",
            "look whether one runs, and whether its log can be written",
        )  # fmt: skip
    row = await opened.database.fetch_one(
        "SELECT MAX(signed_in_at) AS at FROM sessions WHERE ended_at IS NULL"
    )
    if row is not None and row["at"] is not None and row["at"] > now + 60:
        yield Finding(
            "clock_behind_storage", "clock", "sessions of this database begin in the future",
            "set this machine's clock; it is behind that of an authserver",
        )  # fmt: skip


async def _clock(opened: Opened) -> AsyncIterator[Finding]:
    if not isinstance(read_location(opened.settings.storage.url), PostgresqlLocation):
        return
    row = await opened.database.fetch_one(
        "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT) AS now"
    )
    if row is not None and abs(row["now"] - opened.clock()) > _SKEW_SECONDS:
        yield Finding(
            "clock_differs_from_database", "clock",
            f"this machine's clock and the database's differ by more than {_SKEW_SECONDS} seconds",
            "let both follow the same time servers",
        )  # fmt: skip
