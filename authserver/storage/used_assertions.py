"""Client assertions that were used: each counts once, on whichever replica it arrives."""

import hashlib

from authserver.storage.contract import Database


class UsedAssertions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def first_use(self, client_id: str, jti: str, expires_at: int) -> bool:
        """Record a use, in one atomic step; False if this client used this `jti` before."""
        length = len(client_id).to_bytes(4, "big")
        used = hashlib.sha256(length + client_id.encode() + jti.encode()).digest()
        added = await self._database.write(
            "INSERT INTO used_assertions (assertion_hash, expires_at) VALUES (?, ?)"
            " ON CONFLICT (assertion_hash) DO NOTHING",
            used,
            expires_at,
        )
        return added == 1
