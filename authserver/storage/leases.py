"""Leases: what one replica does for all of them, as long as it is alive."""

from authserver.storage.contract import Database


class Leases:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, name: str, holder: str, *, now: int, seconds: int) -> bool:
        """Take or keep a lease, in one atomic step; False while somebody else holds it."""
        row = await self._database.write_returning(
            "INSERT INTO leases (name, holder, expires_at) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE"
            " SET holder = excluded.holder, expires_at = excluded.expires_at"
            " WHERE leases.holder = excluded.holder OR leases.expires_at <= ?"
            " RETURNING holder",
            name,
            holder,
            now + seconds,
            now,
        )
        return row is not None

    async def give_up(self, name: str, holder: str) -> None:
        """Let somebody else have it at once; a lease that is not held stays as it is."""
        await self._database.write("DELETE FROM leases WHERE name = ? AND holder = ?", name, holder)
