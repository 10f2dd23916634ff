"""Registrations of stored connections that the configuration does not name, and since when.

The configuration is a file that each process reads for itself. Since when it has been silent about
a registration is kept here, so that the time is counted across restarts; whichever replica still
names the registration ends it.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import Final

from authserver.storage import revocations
from authserver.storage.connection_rows import AT_KEY, SealedConnections, at
from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.exchanged_tokens import delete_exchanged, opened_of
from authserver.storage.expiry import BATCH
from authserver.storage.keyring import Keyring
from authserver.storage.records import ClientRegistration, ConnectionKey
from authserver.storage.upstream_revocations import UpstreamRevocation, enqueue
from chassis.spiffe_id import Workload

# A registration, and the name of its upstream.
Registered = tuple[str, ClientRegistration]

_REGISTERED: Final = "upstream, authorization_server, client_id"
_AT: Final = "upstream = ? AND authorization_server = ? AND client_id = ?"
_KEY: Final = "user_id, owner_namespace, owner_name, upstream"
# Connections of a registration; one without a client id stands for rows stored before there were
# registrations, which only their issuer is known of.
_BOUND: Final = "upstream = ? AND authorization_server = ? AND registered_client_id = ?"
_UNBOUND: Final = (
    "upstream = ? AND upstream_issuer = ? AND authorization_server IS NULL"
    " AND registered_client_id IS NULL"
)


@dataclass
class Purged:
    """Connections that were deleted, and what was made of them, queued for its upstream."""

    connections: list[ConnectionKey] = field(default_factory=list)
    queued: list[UpstreamRevocation] = field(default_factory=list)


class AbsentRegistrations:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._keyring = database, keyring
        self._sealed = SealedConnections(keyring)

    async def since(self, registered: Registered, now: int) -> int:
        """When a registration was first missed, in Unix seconds; `now` if it is the first time."""
        await self._note(registered, now)
        row = await self._database.fetch_one(
            f"SELECT absent_since FROM absent_registrations WHERE {_AT}", *_columns(registered)
        )
        return int(row["absent_since"]) if row else now

    async def are_named(self, named: Collection[Registered]) -> None:
        """What a replica's configuration names is not absent; for every replica to say."""
        for row in await self._database.fetch_all(
            f"SELECT {_REGISTERED} FROM absent_registrations"
        ):
            if (registered := _registered(row)) in named:
                await self.forget(registered)

    async def find(self, named: Collection[Registered], now: int) -> None:
        """Note which registrations of connections are not named, for the first time `now`."""
        async for registered in self.of_connections():
            if registered not in named:
                await self._note(registered, now)

    async def before(self, moment: int) -> list[Registered]:
        """What no configuration has named since then, or longer."""
        rows = await self._database.fetch_all(
            f"SELECT {_REGISTERED} FROM absent_registrations WHERE absent_since <= ?", moment
        )
        return [_registered(row) for row in rows]

    async def purge(self, registered: Registered, now: int) -> Purged:
        """Delete up to a batch of a registration's connections, wherever they are still its own.

        None of them is revoked at its upstream. What an exchange made of them is queued: it may be
        of another registration, which the configuration still names.
        """
        condition, values = _condition(registered)
        purged, made = Purged(), list[Row]()
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch_all(
                f"SELECT {_KEY} FROM connections WHERE {condition} ORDER BY {_KEY} LIMIT {BATCH}",
                *values,
            )
            for row in rows:
                key = ConnectionKey(row[0], Workload(row[1], row[2]), row[3])
                if await _is_still(transaction, key, registered):
                    purged.connections.append(key)
                    made += await _delete(transaction, key)
            await revocations.connections_ended(transaction, purged.connections, now)
            ended = opened_of(self._sealed, made)
            purged.queued = await enqueue(transaction, self._keyring, ended, now)
        return purged

    async def forget(self, registered: Registered) -> None:
        await self._database.write(
            f"DELETE FROM absent_registrations WHERE {_AT}", *_columns(registered)
        )

    async def users(self, registered: Registered, now: int) -> int:
        """How many users have a connection of this registration and a live session."""
        condition, values = _condition(registered)
        row = await self._database.fetch_one(
            f"SELECT COUNT(DISTINCT user_id) AS n FROM connections WHERE {condition}"
            " AND EXISTS (SELECT 1 FROM sessions s WHERE s.user_id = connections.user_id"
            " AND s.owner_namespace = connections.owner_namespace"
            " AND s.owner_name = connections.owner_name AND s.ended_at IS NULL"
            " AND s.expires_at > ?)",
            *values,
            now,
        )
        return int(row["n"]) if row else 0

    async def bind(self, upstream: str, issuer: str, registration: ClientRegistration) -> int:
        """Give connections of this issuer that were stored without a registration this one.

        Their tokens stay sealed as they are, so that replicas of an earlier version can open
        them. The number of connections.
        """
        return await self._database.write(
            f"UPDATE connections SET authorization_server = ?, registered_client_id = ?"
            f" WHERE {_UNBOUND}",
            registration.authorization_server,
            registration.client_id,
            upstream,
            issuer,
        )

    async def of_connections(self) -> AsyncIterator[Registered]:
        """Every registration of a connection; one step in an index each, however many there are."""
        columns = "upstream, authorization_server, registered_client_id"
        at: Row | tuple[str, ...] | None = ("", "", "")
        while at is not None:
            at = await self._database.fetch_one(
                f"SELECT {columns} FROM connections WHERE ({columns}) > (?, ?, ?)"
                f" AND authorization_server IS NOT NULL ORDER BY {columns} LIMIT 1",
                *at,
            )
            if at is not None:
                yield _registered(at)
        for row in await self._database.fetch_all(
            "SELECT DISTINCT upstream, upstream_issuer FROM connections"
            " WHERE authorization_server IS NULL"
        ):
            yield row["upstream"], ClientRegistration(row["upstream_issuer"], "")

    async def _note(self, registered: Registered, now: int) -> None:
        await self._database.write(
            f"INSERT INTO absent_registrations ({_REGISTERED}, absent_since) VALUES (?, ?, ?, ?)"
            f" ON CONFLICT ({_REGISTERED}) DO NOTHING",
            *_columns(registered),
            now,
        )


async def _is_still(transaction: Transactional, key: ConnectionKey, registered: Registered) -> bool:
    """Whether a connection is of this registration; it stays so, and nothing more is made of it."""
    condition, values = _condition(registered)
    locked = await transaction.fetch_locked(
        f"SELECT 1 FROM connections WHERE {AT_KEY} AND {condition}", *at(key), *values
    )
    return locked is not None


async def _delete(transaction: Transactional, key: ConnectionKey) -> list[Row]:
    """Delete a connection; rows of EXCHANGED_COLUMNS of what was made of it."""
    made = await delete_exchanged(transaction, key.user_id, key.owner, key.upstream)
    await transaction.execute(f"DELETE FROM connections WHERE {AT_KEY}", *at(key))
    return made


def _condition(registered: Registered) -> tuple[str, tuple[str, ...]]:
    """The condition on rows of connections, and its values."""
    upstream, registration = registered
    if not registration.client_id:
        return _UNBOUND, (upstream, registration.authorization_server)
    return _BOUND, _columns(registered)


def _registered(row: Row | tuple[str, ...]) -> Registered:
    upstream, server, client_id = row
    return upstream, ClientRegistration(server, client_id)


def _columns(registered: Registered) -> tuple[str, str, str]:
    upstream, registration = registered
    return upstream, registration.authorization_server, registration.client_id
