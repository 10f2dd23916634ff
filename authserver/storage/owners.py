"""Owners of resources, as the map last named them, and the sessions that a former one leaves.

The map is a file that each process reads for itself. What it said last is kept here, so that the
time without an owner is counted across restarts and replicas.
"""

from collections.abc import Iterable
from typing import Final

from authserver.storage.database import Database
from authserver.storage.sweeping import BATCH
from chassis.spiffe_id import Workload

# A resource and its owner.
Owned = tuple[str, Workload]

_AT: Final = "resource = ? AND owner_namespace = ? AND owner_name = ?"
# `seen_at` is compared with days, so it need not be written with every look at the map.
_FRESH_SECONDS: Final = 3600


class Owners:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def seen(self, named: Iterable[Owned], now: int) -> None:
        """Record, in one step, whom the map names now."""
        fresh = set(await self._rows("seen_at > ?", now - _FRESH_SECONDS))
        stale = [owned for owned in named if owned not in fresh]
        if not stale:
            return
        async with self._database.transaction() as transaction:
            for owned in stale:
                await transaction.execute(
                    "INSERT INTO owners (resource, owner_namespace, owner_name, seen_at)"
                    " VALUES (?, ?, ?, ?) ON CONFLICT (resource, owner_namespace, owner_name)"
                    " DO UPDATE SET seen_at = excluded.seen_at",
                    *_columns(owned),
                    now,
                )

    async def former(self, seen_before: int) -> list[Owned]:
        """Whom the map has not named since then."""
        return await self._rows("seen_at < ?", seen_before)

    async def end_sessions(self, owned: Owned, now: int) -> int:
        """End up to a batch of an owner's sessions for a resource; how many it were.

        The sweep then takes them for what they are: over.
        """
        return await self._database.write(
            "UPDATE sessions SET ended_at = ?, expires_at = ? WHERE tsid IN"
            f" (SELECT tsid FROM sessions WHERE {_AT} AND ended_at IS NULL LIMIT {BATCH})",
            now,
            now,
            *_columns(owned),
        )

    async def forget(self, owned: Owned, seen_before: int) -> None:
        """Forget a former owner, unless the map has named it again meanwhile."""
        await self._database.write(
            f"DELETE FROM owners WHERE {_AT} AND seen_at < ?", *_columns(owned), seen_before
        )

    async def _rows(self, condition: str, moment: int) -> list[Owned]:
        rows = await self._database.fetch_all(
            f"SELECT resource, owner_namespace, owner_name FROM owners WHERE {condition}", moment
        )
        return [(row[0], Workload(row[1], row[2])) for row in rows]


def _columns(owned: Owned) -> tuple[str, str, str]:
    resource, owner = owned
    return resource, owner.namespace, owner.name
