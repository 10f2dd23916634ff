"""Tokens of deleted connections, until their upstream has revoked them.

A row is written in the transaction that deletes the connection: neither a process that dies nor an
upstream that is down can lose it. An attempt has a number, and a time in which nobody else sets
out; what it came to is stored only under its number.
"""

import secrets
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from authserver.storage.connection_rows import registration_of
from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.keyring import DecryptionFailed, Keyring, key_id_of
from authserver.storage.records import Connection, ConnectionKey, UpstreamTokens
from authserver.values import Value
from chassis.logs import Log
from chassis.spiffe_id import Workload

_log = Log("storage")

# Longer than any attempt takes. Who died in one is missed for so long.
LEASE_SECONDS: Final = 60
# What could not be revoked for so long is given up.
KEPT_SECONDS: Final = 7 * 86400
_UNREADABLE_SECONDS: Final = 3600

_COLUMNS: Final = (
    "revocation_id, user_id, owner_namespace, owner_name, upstream, made_of, upstream_issuer,"
    " upstream_subject, authorization_server, registered_client_id, sealed_tokens, attempts,"
    " queued_at, next_at"
)
_INSERT: Final = (
    f"INSERT INTO upstream_revocations ({_COLUMNS}, sealed_under)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ATTEMPT: Final = "revocation_id = ? AND attempts = ?"

_tokens_of: Final = msgspec.json.Decoder(UpstreamTokens).decode


class UpstreamRevocation(Value, frozen=True):
    """Tokens that are to be revoked, as the deleted `connection` that they were of.

    `attempts` names the attempt under way, which is over at `next_at`. Times are Unix seconds.
    """

    revocation_id: str
    connection: Connection
    attempts: int
    queued_at: int
    next_at: int


class Waiting(Value, frozen=True):
    """How many revocations wait at an upstream, and since when the oldest one (Unix seconds)."""

    upstream: str
    count: int
    oldest_at: int


async def enqueue(
    transaction: Transactional,
    keyring: Keyring,
    deleted: Iterable[Connection],
    now: int,
    *,
    attempted: bool = True,
) -> list[UpstreamRevocation]:
    """Queue deleted connections, within the transaction that deletes them.

    `attempted`: the caller sets out for the first attempt itself; nobody else does before its time
    is over.
    """
    queued = []
    for connection in deleted:
        one = UpstreamRevocation(
            secrets.token_urlsafe(16),
            _as_queued(connection),
            int(attempted),
            now,
            now + LEASE_SECONDS if attempted else now,
        )
        await _insert(transaction, keyring, one)
        queued.append(one)
    return queued


def _as_queued(deleted: Connection) -> Connection:
    """Whose tokens they are; where they were stored no longer matters."""
    return Connection(
        deleted.key._replace(variant=""),
        0,
        deleted.upstream_issuer,
        deleted.upstream_subject,
        deleted.tokens,
        registration=deleted.registration,
    )


async def _insert(transaction: Transactional, keyring: Keyring, one: UpstreamRevocation) -> None:
    place = _place(one.revocation_id, one.connection)
    sealed = keyring.seal(msgspec.json.encode(one.connection.tokens), *associated_data(*place))
    await transaction.execute(
        _INSERT, *place, sealed, one.attempts, one.queued_at, one.next_at, key_id_of(sealed)
    )


def associated_data(*place: str | None) -> tuple[str, ...]:
    """Where sealed tokens belong: to the row that says whose they are and who may see them.

    `place` are the columns of the row up to those tokens, in their order.
    """
    parts = ("" if part is None else part for part in place)
    return ("upstream_revocations", "sealed_tokens", *parts)


def _place(revocation_id: str, connection: Connection) -> tuple[str | None, ...]:
    key, registration = connection.key, connection.registration
    return (
        revocation_id,
        key.user_id,
        key.owner.namespace,
        key.owner.name,
        key.upstream,
        key.made_of,
        connection.upstream_issuer,
        connection.upstream_subject,
        registration.authorization_server if registration else None,
        registration.client_id if registration else None,
    )


class UpstreamRevocations:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._keyring = database, keyring

    async def add(self, connection: Connection, now: int) -> UpstreamRevocation:
        """Queue tokens of a connection that is gone already; the caller sets out to revoke them."""
        async with self._database.transaction() as transaction:
            [queued] = await enqueue(transaction, self._keyring, [connection], now)
        return queued

    async def upstreams_due(self, now: int) -> list[str]:
        """The upstreams of what waits for an attempt; one step in an index each."""
        waiting: list[str] = []
        while True:
            row = await self._database.fetch_one(
                "SELECT MIN(upstream) AS next FROM upstream_revocations WHERE upstream > ?",
                waiting[-1] if waiting else "",
            )
            if row is None or row["next"] is None:
                break
            waiting.append(row["next"])
        return [upstream for upstream in waiting if await self._is_due(upstream, now)]

    async def _is_due(self, upstream: str, now: int) -> bool:
        row = await self._database.fetch_one(
            "SELECT 1 FROM upstream_revocations WHERE upstream = ? AND next_at <= ? LIMIT 1",
            upstream,
            now,
        )
        return row is not None

    async def due(self, upstream: str, now: int, limit: int) -> list[UpstreamRevocation]:
        """Up to `limit` revocations that wait for an attempt, the longest due ones first.

        What does not open is put off: a replica may not have a new key yet. It is deleted when its
        time is over.
        """
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM upstream_revocations WHERE upstream = ? AND next_at <= ?"
            " ORDER BY next_at LIMIT ?",
            upstream,
            now,
            limit,
        )
        opened = []
        for row in rows:
            try:
                opened.append(self._opened(row))
            except DecryptionFailed:
                _log.error("sealed_record_unreadable")
                await self._leave_unreadable(row, now)
        return opened

    async def claim(self, one: UpstreamRevocation, now: int) -> UpstreamRevocation | None:
        """Set out for the next attempt; None where somebody else has, or it is done."""
        claimed = replace(one, attempts=one.attempts + 1, next_at=now + LEASE_SECONDS)
        changed = await self._database.write(
            f"UPDATE upstream_revocations SET attempts = ?, next_at = ? WHERE {_ATTEMPT}"
            " AND next_at <= ?",
            claimed.attempts,
            claimed.next_at,
            one.revocation_id,
            one.attempts,
            now,
        )
        return claimed if changed else None

    async def put_off(self, one: UpstreamRevocation, until: int) -> None:
        """The attempt came to nothing; the next one is not before `until`."""
        await self._database.write(
            f"UPDATE upstream_revocations SET next_at = ? WHERE {_ATTEMPT}",
            until,
            one.revocation_id,
            one.attempts,
        )

    async def finish(self, one: UpstreamRevocation) -> bool:
        """Delete what is done or given up; False where another attempt has begun since."""
        changed = await self._database.write(
            f"DELETE FROM upstream_revocations WHERE {_ATTEMPT}", one.revocation_id, one.attempts
        )
        return changed == 1

    async def waiting(self) -> list[Waiting]:
        """What waits at each upstream; nothing of those where nothing does."""
        rows = await self._database.fetch_all(
            "SELECT upstream, COUNT(*) AS n, MIN(queued_at) AS oldest FROM upstream_revocations"
            " GROUP BY upstream"
        )
        return [Waiting(row["upstream"], row["n"], row["oldest"]) for row in rows]

    def _opened(self, row: Row) -> UpstreamRevocation:
        """Raises DecryptionFailed."""
        *place, sealed, attempts, queued_at, next_at = row
        revocation_id, user_id, namespace, name, upstream, made_of, issuer, subject, *client = place
        tokens = _tokens_of(self._keyring.open(sealed, *associated_data(*place)))
        key = ConnectionKey(user_id, Workload(namespace, name), upstream, made_of)
        connection = Connection(
            key, 0, issuer, subject, tokens, registration=registration_of(*client)
        )
        return UpstreamRevocation(revocation_id, connection, attempts, queued_at, next_at)

    async def _leave_unreadable(self, row: Row, now: int) -> None:
        if now - row["queued_at"] >= KEPT_SECONDS:
            await self._database.write(
                f"DELETE FROM upstream_revocations WHERE {_ATTEMPT}",
                row["revocation_id"],
                row["attempts"],
            )
            return
        await self._database.write(
            f"UPDATE upstream_revocations SET next_at = ? WHERE {_ATTEMPT}",
            now + _UNREADABLE_SECONDS,
            row["revocation_id"],
            row["attempts"],
        )
