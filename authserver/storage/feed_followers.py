"""How many sidecars follow the revocation feed: each replica's word, good for half a minute.

An operator's command is a process of its own, and tells from here who hears of what it ends.
"""

import json
from collections.abc import Collection, Mapping
from typing import Final

from authserver.storage.contract import Database

KEPT_SECONDS: Final = 30


class FeedFollowers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, replica: str, followers: Mapping[str, int], now: int) -> None:
        """What a replica counts now, by owner (`namespace/name`)."""
        await self._database.write(
            "INSERT INTO feed_followers (replica, followers, expires_at) VALUES (?, ?, ?)"
            " ON CONFLICT (replica) DO UPDATE SET followers = excluded.followers,"
            " expires_at = excluded.expires_at",
            replica,
            json.dumps(followers),
            now + KEPT_SECONDS,
        )

    async def count(self, owners: Collection[str], now: int) -> int:
        """How many sidecars of these owners follow the feed, at all replicas together."""
        rows = await self._database.fetch_all(
            "SELECT followers FROM feed_followers WHERE expires_at > ?", now
        )
        counts = (json.loads(row["followers"]) for row in rows)
        return sum(of_replica.get(owner, 0) for of_replica in counts for owner in owners)
