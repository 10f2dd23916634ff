"""Links by which an account was connected, under their hashes: each attaches one account."""

from authserver.storage.contract import Database, Transactional


class UsedConnectLinks:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def has(self, link_hash: bytes) -> bool:
        """Whether an account was connected by this link."""
        row = await self._database.fetch_one(
            "SELECT 1 FROM used_connect_links WHERE link_hash = ?", link_hash
        )
        return row is not None


async def use(transaction: Transactional, link_hash: bytes, expires_at: int) -> bool:
    """Use a link up, within the transaction that connects; False if it was used before."""
    added = await transaction.execute(
        "INSERT INTO used_connect_links (link_hash, expires_at) VALUES (?, ?)"
        " ON CONFLICT (link_hash) DO NOTHING",
        link_hash,
        expires_at,
    )
    return added == 1
