"""How many users must come back soon, because what they authorized ends."""

from typing import Final

from authserver.storage.contract import Database

# A session that ends for good within the time also expires within it, so the index on
# `expires_at` keeps the query small. A later session of the user at the resource takes over.
# The expression in place of `l.resource` keeps SQLite from the index on resources, under which
# there are all of its users.
_OF_SESSIONS: Final = (
    "SELECT s.user_id FROM sessions s WHERE s.expires_at > ? AND s.expires_at <= ?"
    " AND s.ended_at IS NULL AND s.created_at <= ? AND NOT EXISTS (SELECT 1 FROM sessions l"
    " WHERE l.user_id = s.user_id AND l.owner_namespace = s.owner_namespace"
    " AND l.owner_name = s.owner_name AND l.resource || '' = s.resource AND l.ended_at IS NULL"
    " AND l.expires_at > ? AND l.created_at > ?)"
)
# Only where a live session named the upstream; one without a list named all.
_IN_USE: Final = (
    "EXISTS (SELECT 1 FROM sessions s WHERE s.user_id = c.user_id"
    " AND s.owner_namespace = c.owner_namespace AND s.owner_name = c.owner_name"
    " AND s.ended_at IS NULL AND s.expires_at > ? AND (s.upstreams IS NULL"
    " OR ' ' || s.upstreams || ' ' LIKE '% ' || c.upstream || ' %'))"
)
COUNT: Final = (
    "SELECT COUNT(*) AS n FROM users WHERE blocked_at IS NULL AND user_id IN ("
    f"{_OF_SESSIONS}"
    f" UNION SELECT c.user_id FROM connections c WHERE c.needs_user_at IS NOT NULL"
    f" AND c.needs_user_at <= ? AND {_IN_USE}"
    f" UNION SELECT c.user_id FROM connections c WHERE c.dead = 1 AND {_IN_USE})"
)


class UsersNeeded:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, now: float, *, within: int, absolute_seconds: int) -> int:
        """Users whose authorization ends within `within` seconds, however busy they are.

        That is: their last session at a resource reaches `absolute_seconds`, or a connection that
        a live session names is dead or reaches the end that its upstream told. Blocked users are
        not counted.
        """
        at, until = int(now), int(now) + within
        begun = until - absolute_seconds
        row = await self._database.fetch_one(COUNT, at, until, begun, at, begun, until, at, at)
        return int(row["n"]) if row is not None else 0
