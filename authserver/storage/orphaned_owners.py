"""Owners of resources that the map no longer names, and the sessions they have left.

The map is a file that each process reads for itself. Since when it has been silent about an owner
is kept here, so that the time is counted across restarts; whichever replica still names the owner
ends it.
"""

from collections.abc import AsyncIterator, Collection
from typing import Final

from authserver.storage.contract import Database, Row
from authserver.storage.expiry import BATCH
from chassis.spiffe_id import Workload

# A resource and its owner.
Owned = tuple[str, Workload]

_OWNED: Final = "resource, owner_namespace, owner_name"
_AT: Final = "resource = ? AND owner_namespace = ? AND owner_name = ?"


class OrphanedOwners:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def are_named(self, named: Collection[Owned]) -> None:
        """Whoever a replica's map names is no former owner; for every replica to say."""
        for row in await self._database.fetch_all(f"SELECT {_OWNED} FROM former_owners"):
            if (owned := _owned(row)) in named:
                await self.forget(owned)

    async def find(self, named: Collection[Owned], now: int) -> None:
        """Note which owners of live sessions this map does not name, for the first time `now`."""
        async for owned in self._holders():
            if owned not in named:
                await self._database.write(
                    f"INSERT INTO former_owners ({_OWNED}, missing_since) VALUES (?, ?, ?, ?)"
                    f" ON CONFLICT ({_OWNED}) DO NOTHING",
                    *_columns(owned),
                    now,
                )

    async def since(self, moment: int) -> list[Owned]:
        """Whom no map has named since then, or longer."""
        rows = await self._database.fetch_all(
            f"SELECT {_OWNED} FROM former_owners WHERE missing_since <= ?", moment
        )
        return [_owned(row) for row in rows]

    async def sessions_of(self, owned: Owned) -> list[str]:
        """Up to a batch of an owner's live sessions for its resource."""
        rows = await self._database.fetch_all(
            f"SELECT tsid FROM sessions WHERE {_AT} AND ended_at IS NULL LIMIT {BATCH}",
            *_columns(owned),
        )
        return [row["tsid"] for row in rows]

    async def sessions_before(self, owned: Owned, moment: int) -> list[str]:
        """Up to a batch of live sessions that began before an owner was made anew."""
        rows = await self._database.fetch_all(
            f"SELECT tsid FROM sessions WHERE {_AT} AND created_at < ? AND ended_at IS NULL"
            f" LIMIT {BATCH}",
            *_columns(owned),
            moment,
        )
        return [row["tsid"] for row in rows]

    async def sessions_of_others(self, owned: Owned, uids: tuple[str, str]) -> list[str]:
        """Up to a batch of live sessions of other objects of the owner's name."""
        rows = await self._database.fetch_all(
            f"SELECT tsid FROM sessions WHERE {_AT} AND owner_uid NOT IN (?, ?)"
            f" AND ended_at IS NULL LIMIT {BATCH}",
            *_columns(owned),
            *uids,
        )
        return [row["tsid"] for row in rows]

    async def adopt(self, owned: Owned, uid: str, former: str) -> int:
        """Give the owner's object `uid` what the object `former` has left; how many sessions."""
        _, owner = owned
        async with self._database.transaction() as transaction:
            await transaction.execute(
                "UPDATE connections SET owner_uid = ? WHERE owner_namespace = ? AND owner_name = ?"
                " AND owner_uid = ?",
                uid,
                owner.namespace,
                owner.name,
                former,
            )
            return await transaction.execute(
                f"UPDATE sessions SET owner_uid = ? WHERE {_AT} AND owner_uid = ?",
                uid,
                *_columns(owned),
                former,
            )

    async def forget(self, owned: Owned) -> None:
        await self._database.write(f"DELETE FROM former_owners WHERE {_AT}", *_columns(owned))

    async def _holders(self) -> AsyncIterator[Owned]:
        """Every owner of a live session; one step in an index each, however many sessions."""
        at: Row | tuple[str, ...] | None = ("", "", "")
        while at is not None:
            at = await self._database.fetch_one(
                f"SELECT {_OWNED} FROM sessions WHERE ({_OWNED}) > (?, ?, ?)"
                f" AND ended_at IS NULL ORDER BY {_OWNED} LIMIT 1",
                *at,
            )
            if at is not None:
                yield _owned(at)


def _owned(row: Row) -> Owned:
    resource, namespace, name = row
    return resource, Workload(namespace, name)


def _columns(owned: Owned) -> tuple[str, str, str]:
    resource, owner = owned
    return resource, owner.namespace, owner.name
