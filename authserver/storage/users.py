"""Users: persons, each known by an upstream's issuer and subject."""

from authserver.storage.contract import Database
from authserver.storage.records import User


class Users:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str) -> User | None:
        row = await self._database.fetch_one(
            "SELECT upstream_issuer, subject FROM users WHERE user_id = ?", user_id
        )
        return User(user_id, row["upstream_issuer"], row["subject"]) if row else None
