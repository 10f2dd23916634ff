"""Connections: upstream tokens, sealed to their row and generation.

The claim on a connection's refresh token is taken and settled in `claim_rows`.
"""

from collections.abc import Sequence

from authserver.storage import revocations
from authserver.storage.connection_rows import (
    AT_KEY,
    COLUMNS,
    EXCHANGED_COLUMNS,
    VALUES,
    SealedConnections,
    at,
    carry_refresh_token,
    is_another_grant,
    is_same_account,
    place_of,
)
from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.exchanged_tokens import NoSuchSession, delete_exchanged, opened_of
from authserver.storage.keyring import Keyring, key_id_of
from authserver.storage.opened_connections import OpenedConnections
from authserver.storage.records import (
    Connection,
    ConnectionKey,
    Grant,
)
from authserver.storage.upstream_revocations import UpstreamRevocation, enqueue
from authserver.storage.users import UserBlocked
from chassis.spiffe_id import Workload

_OF_SESSION = (
    f"SELECT {VALUES}, s.upstreams, (SELECT u.blocked_at FROM users u WHERE u.user_id = s.user_id)"
    " AS blocked_at FROM sessions s LEFT JOIN connections c ON c.user_id = s.user_id"
    " AND c.owner_namespace = s.owner_namespace AND c.owner_name = s.owner_name"
    " AND c.owner_uid = s.owner_uid AND c.upstream = ?"
    " WHERE s.tsid = ? AND s.user_id = ? AND s.client_id = ?"
    " AND s.resource = ? AND s.owner_namespace = ? AND s.owner_name = ?"
    " AND s.owner_uid IN (?, ?) AND s.ended_at IS NULL AND s.expires_at > ?"
)
_LIVE_SESSION = (
    "SELECT 1 FROM sessions s WHERE s.user_id = connections.user_id"
    " AND s.owner_namespace = connections.owner_namespace"
    " AND s.owner_name = connections.owner_name"
    " AND s.owner_uid = connections.owner_uid AND s.ended_at IS NULL AND s.expires_at > ?"
)


class Connections:
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
        """The connection at `key` of a session that is bound to exactly all this, in one read.

        None where there is none, or where the session's authorization did not name the upstream:
        its consent page said nothing of it. Raises NoSuchSession, for one of somebody else just as
        for one that does not exist, and UserBlocked. `owner_uids` are the owner's own UID and the
        one it adopts: a session of another object of its name is somebody else's.
        """
        user_id, namespace, name, upstream = at(key)
        row = await self._database.look_up(
            _OF_SESSION,
            upstream,
            tsid,
            user_id,
            client_id,
            resource,
            namespace,
            name,
            *owner_uids,
            int(now),
        )
        if row is None:
            self._opened.forget(key)
            raise NoSuchSession
        *values, named, blocked_at = row
        if blocked_at is not None:
            self._opened.forget(key)
            raise UserBlocked
        generation = values[0]
        if generation is None or not (named is None or upstream in named.split()):
            return None
        return self._opened.open_at(key, values, now)

    async def get(self, key: ConnectionKey) -> Connection | None:
        """A connection, or tokens that were made of one."""
        table, at_key = place_of(key)
        columns = EXCHANGED_COLUMNS if key.made_of else COLUMNS
        row = await self._database.fetch_one(
            f"SELECT {columns} FROM {table} WHERE {at_key}", *at(key)
        )
        if row is None:
            return None
        return self._sealed.open_exchanged(row) if key.made_of else self._sealed.open(row)

    async def of_user(
        self, user_id: str, owner: Workload, *owner_uids: str
    ) -> dict[str, Connection]:
        """What this user has with the objects `owner_uids` of an owner's name, by upstream."""
        named = ", ".join("?" for _ in owner_uids)
        rows = await self._database.fetch_all(
            f"SELECT {COLUMNS} FROM connections"
            " WHERE user_id = ? AND owner_namespace = ? AND owner_name = ?"
            f" AND owner_uid IN ({named})",
            user_id,
            owner.namespace,
            owner.name,
            *owner_uids,
        )
        return {row["upstream"]: self._sealed.open(row) for row in rows}

    async def identifying(self, user_id: str, owner: Workload, owner_uid: str) -> list[Connection]:
        """Those of `of_user` that are to the upstream account by which the user is known.

        Usually one; more where two upstreams are the same provider.
        """
        rows = await self._database.look_all_up(
            f"SELECT {COLUMNS} FROM connections"
            " WHERE user_id = ? AND owner_namespace = ? AND owner_name = ? AND owner_uid = ?"
            " AND EXISTS (SELECT 1 FROM users u WHERE u.user_id = connections.user_id"
            " AND u.upstream_issuer = connections.upstream_issuer"
            " AND u.subject = connections.upstream_subject)",
            user_id,
            owner.namespace,
            owner.name,
            owner_uid,
        )
        return [self._sealed.open(row) for row in rows]

    async def purge_unused(
        self, user_id: str, owner: Workload, now: int
    ) -> list[UpstreamRevocation]:
        """Delete, in one step, this user's connections for `owner` if no live session is left.

        Returns what was deleted and can be opened, queued for revocation at the upstream: what was
        made of a connection comes before the connection.
        """
        holder = (user_id, owner.namespace, owner.name)
        unused = (
            "FROM connections WHERE user_id = ? AND owner_namespace = ? AND owner_name = ?"
            f" AND NOT EXISTS ({_LIVE_SESSION})"
        )
        async with self._database.transaction() as transaction:
            # Without this, the session of a sign-in that commits just now could be overlooked.
            await transaction.fetch_locked("SELECT 1 FROM users WHERE user_id = ?", user_id)
            rows = await transaction.fetch_all(f"SELECT upstream {unused}", *holder, now)
            made: list[Row] = []
            for row in rows:
                made += await delete_exchanged(transaction, user_id, owner, row["upstream"])
            deleted = await transaction.fetch_all(
                f"DELETE {unused} RETURNING {COLUMNS}", *holder, now
            )
            queued = await self._end(transaction, deleted, made, now)
        for row in deleted:
            self._opened.forget(ConnectionKey(user_id, owner, row["upstream"]))
        return queued

    async def remove(self, key: ConnectionKey, now: int) -> list[UpstreamRevocation]:
        """Delete a connection; what was deleted and can be opened, queued as by `purge_unused`."""
        async with self._database.transaction() as transaction:
            await transaction.fetch_locked(f"SELECT 1 FROM connections WHERE {AT_KEY}", *at(key))
            made = await delete_exchanged(transaction, key.user_id, key.owner, key.upstream)
            deleted = await transaction.fetch_all(
                f"DELETE FROM connections WHERE {AT_KEY} RETURNING {COLUMNS}", *at(key)
            )
            return await self._end(transaction, deleted, made, now)

    async def _end(
        self, transaction: Transactional, deleted: list[Row], made: list[Row], now: int
    ) -> list[UpstreamRevocation]:
        """Tell sidecars of deleted rows, and queue what they hold for its upstream."""
        keys = [ConnectionKey(row[0], Workload(row[1], row[2]), row[3]) for row in deleted]
        await revocations.connections_ended(transaction, keys, now)
        opened = [self._sealed.open_if_whole(row) for row in deleted]
        ended = [*opened_of(self._sealed, made), *(one for one in opened if one is not None)]
        return await enqueue(transaction, self._keyring, ended, now)

    async def shares_its_grant(self, deleted: Connection) -> bool:
        """Whether this user has a connection that may live on a deleted one's grant.

        It is of the same account, as far as both are known, and of the same client of ours.
        """
        condition, values = "user_id = ? AND upstream = ?", [deleted.key.user_id]
        values.append(deleted.key.upstream)
        if deleted.upstream_subject:
            condition += " AND upstream_subject IN (?, '')"
            values.append(deleted.upstream_subject)
        if deleted.registration is not None:
            condition += (
                " AND (authorization_server IS NULL"
                " OR (authorization_server = ? AND registered_client_id = ?))"
            )
            values += [deleted.registration.authorization_server, deleted.registration.client_id]
        row = await self._database.fetch_one(
            f"SELECT 1 FROM connections WHERE {condition} LIMIT 1", *values
        )
        return row is not None

    async def counts(self) -> Sequence[tuple[str, bool, int]]:
        """(upstream, dead, how many) over all connections."""
        rows = await self._database.fetch_all(
            "SELECT upstream, dead, COUNT(*) AS n FROM connections GROUP BY upstream, dead"
        )
        return [(row["upstream"], bool(row["dead"]), row["n"]) for row in rows]

    async def put(
        self,
        transaction: Transactional,
        user_id: str,
        owner: Workload,
        grant: Grant,
        owner_uid: str = "",
    ) -> None:
        """Store what a sign-in gave, within its transaction, as the next generation.

        Where the upstream gave no refresh token this time, the stored one of the same upstream
        account stays in use, unless somebody is presenting it right now. `owner_uid` says which
        object of the owner's name it is for; nothing of another one's is carried over. Tokens of
        another account, or of another client of ours, are queued for revocation upstream.
        """
        key = ConnectionKey(user_id, owner, grant.upstream)
        # Locked: a refresh that starts just now must not present what is carried over here.
        row = await transaction.fetch_locked(
            f"SELECT {COLUMNS}, owner_uid FROM connections WHERE {AT_KEY}",
            *at(key),
        )
        now = grant.tokens.obtained_at
        replaced = self._sealed.open_if_whole(row[:-1]) if row else None
        same_owner = row is not None and row["owner_uid"] == owner_uid
        before = replaced if same_owner else None
        if row is not None and not (same_owner and is_same_account(row, grant)):
            # What sidecars hold is another account's, or another object's.
            await revocations.connections_ended(transaction, [key], now)
        if replaced is not None and is_another_grant(replaced, grant):
            made = await delete_exchanged(transaction, user_id, owner, grant.upstream)
            over = [*opened_of(self._sealed, made), replaced]
            await enqueue(transaction, self._keyring, over, now, attempted=False)
        after = Connection(
            key,
            row["generation"] + 1 if row else 1,
            grant.upstream_issuer,
            grant.upstream_subject,
            carry_refresh_token(before, grant),
            grant.asked_scope,
            registration=grant.registration,
        )
        sealed = self._sealed.seal(after)
        await transaction.execute(f"DELETE FROM connections WHERE {AT_KEY}", *at(key))
        await transaction.execute(
            "INSERT INTO connections (user_id, owner_namespace, owner_name, upstream, generation,"
            " upstream_issuer, upstream_subject, asked_scope, sealed_tokens, sealed_under,"
            " authorization_server, registered_client_id, owner_uid, needs_user_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *at(key),
            after.generation,
            after.upstream_issuer,
            after.upstream_subject,
            after.asked_scope,
            sealed,
            key_id_of(sealed),
            grant.registration.authorization_server if grant.registration else None,
            grant.registration.client_id if grant.registration else None,
            owner_uid,
            after.tokens.needs_user_at,
        )
