"""Signed-in browsers: the user of each, kept for some hours under the hash of a fresh handle."""

from authserver.storage import accounts
from authserver.storage.contract import Database, Writes
from authserver.storage.keyring import Keyring
from authserver.storage.records import NO_ACCOUNT, Account
from authserver.values import Value


class SignedIn(Value, frozen=True):
    """The user at a browser, known by (upstream issuer, subject), and since when."""

    user_id: str
    upstream_issuer: str
    subject: str
    signed_in_at: int
    account: Account = NO_ACCOUNT


class BrowserSessions:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._keyring = database, keyring

    async def get(self, handle_hash: bytes, now: float) -> SignedIn | None:
        row = await self._database.fetch_one(
            "SELECT u.user_id, u.upstream_issuer, u.subject, b.signed_in_at, u.sealed_account"
            " FROM browser_sessions b JOIN users u ON u.user_id = b.user_id"
            " WHERE b.handle_hash = ? AND b.expires_at > ? AND u.blocked_at IS NULL",
            handle_hash,
            int(now),
        )
        if row is None:
            return None
        return SignedIn(
            row["user_id"],
            row["upstream_issuer"],
            row["subject"],
            row["signed_in_at"],
            accounts.read(row, self._keyring),
        )

    async def end_of_user(self, user_id: str) -> None:
        """End this user's sessions at every browser."""
        await self._database.write("DELETE FROM browser_sessions WHERE user_id = ?", user_id)

    async def end(self, handle_hash: bytes) -> None:
        """End the session of a handle; one that is over already changes nothing."""
        await self._database.write(
            "DELETE FROM browser_sessions WHERE handle_hash = ?", handle_hash
        )


async def add(
    writes: Writes, handle_hash: bytes, user_id: str, *, now: int, expires_at: int
) -> None:
    """Store a session under a fresh handle, within a sign-in's transaction."""
    await writes.execute(
        "INSERT INTO browser_sessions (handle_hash, user_id, signed_in_at, expires_at)"
        " VALUES (?, ?, ?, ?)",
        handle_hash,
        user_id,
        now,
        expires_at,
    )
