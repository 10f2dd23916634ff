"""Registrations of stored connections that the configuration does not name, and since when.

The configuration is a file that each process reads for itself. Since when it has been silent about
a registration is kept here, so that the time is counted across restarts; whichever replica still
names the registration ends it.
"""

from collections.abc import AsyncIterator, Collection
from typing import Final

from authserver.storage import revocations
from authserver.storage.contract import Database, Row
from authserver.storage.expiry import BATCH
from authserver.storage.records import ClientRegistration, ConnectionKey
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


class AbsentRegistrations:
    def __init__(self, database: Database) -> None:
        self._database = database

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

    async def purge(self, registered: Registered, now: int) -> list[ConnectionKey]:
        """Delete up to a batch of a registration's connections, wherever they are still its own.

        Whose they were: none of them is revoked at its upstream.
        """
        condition, values = _condition(registered)
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch_all(
                f"DELETE FROM connections WHERE ({_KEY}) IN"
                f" (SELECT {_KEY} FROM connections WHERE {condition} LIMIT {BATCH})"
                f" AND {condition} RETURNING {_KEY}",
                *values,
                *values,
            )
            purged = [ConnectionKey(row[0], Workload(row[1], row[2]), row[3]) for row in rows]
            await revocations.connections_ended(transaction, purged, now)
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
