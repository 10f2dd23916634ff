"""Tokens that were made of a connection's by an exchange (RFC 8693), sealed to their row.

They live on that connection: with it they go, and while it is dead they are not found. The claim
that makes and renews them is that of `claim_rows`.
"""

from collections.abc import Sequence
from typing import Final

from authserver.storage.connection_rows import (
    EXCHANGED_COLUMNS,
    VALUES,
    SealedConnections,
    at,
    place_of,
)
from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.expiry import BATCH
from authserver.storage.keyring import Keyring, key_id_of
from authserver.storage.opened_connections import OpenedConnections
from authserver.storage.records import (
    ClientRegistration,
    Connection,
    ConnectionKey,
    UpstreamTokens,
)
from authserver.storage.upstream_revocations import UpstreamRevocation, enqueue
from authserver.storage.users import UserBlocked
from chassis.spiffe_id import Workload

# So many variants of one upstream are kept for one user and owner; the oldest one gives way.
MAX_VARIANTS: Final = 64

_OF_C: Final = ", ".join(f"c.{name}" for name in VALUES.split(", "))
_OF_SESSION: Final = (
    f"SELECT {_OF_C}, s.upstreams, (SELECT u.blocked_at FROM users u WHERE u.user_id = s.user_id)"
    " AS blocked_at FROM sessions s LEFT JOIN connections p ON p.user_id = s.user_id"
    " AND p.owner_namespace = s.owner_namespace AND p.owner_name = s.owner_name"
    " AND p.owner_uid = s.owner_uid AND p.upstream = ? AND p.dead = 0"
    " LEFT JOIN exchanged_tokens c ON c.user_id = p.user_id"
    " AND c.owner_namespace = p.owner_namespace AND c.owner_name = p.owner_name"
    " AND c.made_of = p.upstream AND c.upstream = ? AND c.variant = ?"
    " WHERE s.tsid = ? AND s.user_id = ? AND s.client_id = ? AND s.resource = ?"
    " AND s.owner_namespace = ? AND s.owner_name = ? AND s.owner_uid IN (?, ?)"
    " AND s.ended_at IS NULL AND s.expires_at > ?"
)
_INSERT: Final = (
    "INSERT INTO exchanged_tokens (user_id, owner_namespace, owner_name, made_of, upstream,"
    " variant, generation, upstream_issuer, upstream_subject, asked_scope, asked_audience,"
    " sealed_tokens, sealed_under, authorization_server, registered_client_id, renewed_at)"
    " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
# What no token is yet: over before it began.
_NOTHING: Final = UpstreamTokens("", None, None, 0, 0)


class NoSuchSession(Exception):
    """No live session is all that its token and the resource map say of it."""


class UpstreamNotNamed(Exception):
    """The session's authorization did not name the upstream."""


class ExchangedTokens:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._keyring = database, keyring
        self._sealed, self._opened = SealedConnections(keyring), OpenedConnections(keyring)

    async def of_session(
        self,
        tsid: str,
        key: ConnectionKey,
        *,
        client_id: str,
        resource: str,
        now: float,
        owner_uids: tuple[str, str] = ("", ""),
    ) -> Connection | None:
        """The tokens at `key` of a session that is bound to exactly all this, in one read.

        None where there are none, or where what they were made of is dead. Raises NoSuchSession,
        UserBlocked, and UpstreamNotNamed where the session's consent page did not name the
        upstream.
        """
        user_id, namespace, name, made_of, upstream, variant = at(key)
        row = await self._database.look_up(
            _OF_SESSION, made_of, upstream, variant, tsid, user_id, client_id, resource, namespace,
            name, *owner_uids, int(now),
        )  # fmt: skip
        if row is None:
            self._opened.forget(key)
            raise NoSuchSession
        *values, named, blocked_at = row
        if blocked_at is not None:
            self._opened.forget(key)
            raise UserBlocked
        if named is None or upstream not in named.split():
            raise UpstreamNotNamed
        return None if values[0] is None else self._opened.open_at(key, values, now)

    async def prepare(
        self,
        key: ConnectionKey,
        parent: Connection,
        registration: ClientRegistration,
        *,
        asked_scope: str,
        asked_audience: str,
        now: int,
    ) -> Connection | None:
        """The row at `key`, made now if there was none: what a claim is taken on.

        None where `parent` is gone or has become another account's meanwhile.
        """
        table, at_key = place_of(key)
        select = f"SELECT {EXCHANGED_COLUMNS} FROM {table} WHERE {at_key}"
        row = await self._database.fetch_one(select, *at(key))
        if row is None:
            made = Connection(
                key, 0, parent.upstream_issuer, parent.upstream_subject, _NOTHING, asked_scope,
                registration=registration,
            )  # fmt: skip
            await self._insert(made, parent, asked_audience, now)
            row = await self._database.fetch_one(select, *at(key))
        return None if row is None else self._sealed.open_exchanged(row)

    async def _insert(
        self, made: Connection, parent: Connection, asked_audience: str, now: int
    ) -> None:
        key, registration, sealed = made.key, made.registration, self._sealed.seal(made)
        assert registration is not None
        async with self._database.transaction() as transaction:
            # Locked, so that the connection cannot go, or become another's, in between.
            locked = await transaction.fetch_locked(
                "SELECT upstream_issuer, upstream_subject FROM connections WHERE user_id = ?"
                " AND owner_namespace = ? AND owner_name = ? AND upstream = ?",
                *at(key.root),
            )
            account = (parent.upstream_issuer, parent.upstream_subject)
            if locked is None or (locked["upstream_issuer"], locked["upstream_subject"]) != account:
                return
            given_up = opened_of(self._sealed, await _make_room(transaction, key))
            await enqueue(transaction, self._keyring, given_up, now, attempted=False)
            await transaction.execute(
                _INSERT, *at(key), made.upstream_issuer, made.upstream_subject, made.asked_scope,
                asked_audience, sealed, key_id_of(sealed), registration.authorization_server,
                registration.client_id, now,
            )  # fmt: skip

    async def drop_older(self, moment: int, now: int) -> list[UpstreamRevocation]:
        """Delete a batch of what was last made before `moment`, and queue it for its upstream.

        Only what nobody is about to renew. What is still wanted is made anew.
        """
        columns = "user_id, owner_namespace, owner_name, made_of, upstream, variant"
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch_all(
                f"DELETE FROM exchanged_tokens WHERE ({columns}) IN (SELECT {columns}"
                f" FROM exchanged_tokens WHERE renewed_at < ? ORDER BY renewed_at LIMIT {BATCH})"
                f" AND renewed_at < ? AND refresh_claim IS NULL RETURNING {EXCHANGED_COLUMNS}",
                moment,
                moment,
            )
            return await enqueue(transaction, self._keyring, opened_of(self._sealed, rows), now)


async def delete_exchanged(
    transaction: Transactional, user_id: str, owner: Workload, made_of: str
) -> list[Row]:
    """Delete what was made of a user's connection at the upstream `made_of`.

    Returns rows of EXCHANGED_COLUMNS. For the transaction that deletes the connection.
    """
    return await transaction.fetch_all(
        "DELETE FROM exchanged_tokens WHERE user_id = ? AND owner_namespace = ?"
        f" AND owner_name = ? AND made_of = ? RETURNING {EXCHANGED_COLUMNS}",
        user_id,
        owner.namespace,
        owner.name,
        made_of,
    )


def opened_of(sealed: SealedConnections, rows: Sequence[Row]) -> list[Connection]:
    """Those of deleted rows that hold a token and open."""
    opened = (sealed.open_exchanged_if_whole(row) for row in rows)
    return [one for one in opened if one is not None and one.generation]


async def _make_room(transaction: Transactional, key: ConnectionKey) -> list[Row]:
    """Delete the oldest variants of an upstream where there are too many for one more.

    Returns rows of EXCHANGED_COLUMNS.
    """
    at_upstream = (
        "user_id = ? AND owner_namespace = ? AND owner_name = ? AND made_of = ? AND upstream = ?"
    )
    rows = await transaction.fetch_all(
        f"SELECT variant FROM exchanged_tokens WHERE {at_upstream} ORDER BY renewed_at, variant",
        *at(key)[:-1],
    )
    deleted: list[Row] = []
    for row in rows[: max(0, len(rows) - MAX_VARIANTS + 1)]:
        deleted += await transaction.fetch_all(
            f"DELETE FROM exchanged_tokens WHERE {at_upstream} AND variant = ?"
            f" RETURNING {EXCHANGED_COLUMNS}",
            *at(key)[:-1],
            row["variant"],
        )
    return deleted
