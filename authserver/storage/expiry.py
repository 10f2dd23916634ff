"""Removal of what expired, in small batches so that no flow waits long for a lock."""

from collections.abc import Iterable
from typing import Final

from authserver.storage.contract import Database
from chassis.spiffe_id import Workload

BATCH: Final = 200

# A redeemed code is kept as long as its session, so that a replay is recognised (RFC 9700 4.13);
# it goes with the session. Only codes nobody redeemed expire on their own.
_EXPIRED: Final = (
    ("transactions", "handle_hash", "expires_at <= ?"),
    ("codes", "code_hash", "redeemed_at IS NULL AND expires_at <= ?"),
    ("refresh_tokens", "token_hash", "expires_at <= ?"),
    ("browser_sessions", "handle_hash", "expires_at <= ?"),
    ("consents", "consent_hash", "expires_at <= ?"),
    ("used_assertions", "assertion_hash", "expires_at <= ?"),
    ("revocations", "revocation_id", "expires_at <= ?"),
    ("feed_followers", "replica", "expires_at <= ?"),
    ("used_connect_links", "link_hash", "expires_at <= ?"),
    ("clients", "client_id", "expires_at IS NOT NULL AND expires_at <= ?"),
)
_CONNECTION: Final = (
    "SELECT 1 FROM connections c WHERE c.user_id = s.user_id"
    " AND c.owner_namespace = s.owner_namespace AND c.owner_name = s.owner_name"
)


class Expiry:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def expired(self, now: int) -> int:
        """Delete up to a batch of expired rows from each table; the largest number that went."""
        removed = 0
        for table, key, condition in _EXPIRED:
            gone = await self._database.write(
                f"DELETE FROM {table} WHERE {key} IN"
                f" (SELECT {key} FROM {table} WHERE {condition} LIMIT {BATCH})",
                now,
            )
            removed = max(removed, gone)
        return removed

    async def over_sessions(self, now: int) -> dict[str, tuple[str, Workload] | None]:
        """A batch of ended or expired sessions by `tsid`; whose connections to look at.

        None where the user has no connection for the session's owner: who ended the session has
        purged them.
        """
        rows = await self._database.fetch_all(
            "SELECT tsid, user_id, owner_namespace, owner_name,"
            f" EXISTS ({_CONNECTION}) AS connected FROM sessions s"
            f" WHERE expires_at <= ? ORDER BY expires_at LIMIT {BATCH}",
            now,
        )
        return {
            row["tsid"]: (row["user_id"], Workload(row["owner_namespace"], row["owner_name"]))
            if row["connected"]
            else None
            for row in rows
        }

    async def drop_sessions(self, tsids: Iterable[str], now: int) -> None:
        """Delete sessions, if they are still over, with their codes and refresh tokens."""
        async with self._database.transaction() as transaction:
            for tsid in tsids:
                await transaction.execute(
                    "DELETE FROM sessions WHERE tsid = ? AND expires_at <= ?", tsid, now
                )
