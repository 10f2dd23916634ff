"""Users: persons, each known by an upstream's issuer and subject."""

from authserver.storage.contract import Database, Transactional
from authserver.storage.records import User


class UserBlocked(Exception):
    """An operator keeps this user out: no sign-in, no refresh, no release."""


class Users:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str) -> User | None:
        row = await self._database.fetch_one(
            "SELECT upstream_issuer, subject FROM users WHERE user_id = ?", user_id
        )
        return User(user_id, row["upstream_issuer"], row["subject"]) if row else None

    async def named(self, upstream_issuer: str, subject: str) -> User | None:
        """The user whom an upstream names so."""
        row = await self._database.fetch_one(
            "SELECT user_id FROM users WHERE upstream_issuer = ? AND subject = ?",
            upstream_issuer,
            subject,
        )
        return User(row["user_id"], upstream_issuer, subject) if row else None


async def is_blocked(transaction: Transactional, user_id: str) -> bool:
    """Whether an operator keeps a user out.

    The row is locked: a block that is under way is waited for, and one that comes later finds what
    this transaction stored.
    """
    row = await transaction.fetch_locked("SELECT blocked_at FROM users WHERE user_id = ?", user_id)
    return row is not None and row["blocked_at"] is not None


async def set_blocked(transaction: Transactional, user_id: str, blocked_at: int | None) -> bool:
    """Block a user since then, or lift the block; False where nothing changed."""
    condition = "IS NULL" if blocked_at is not None else "IS NOT NULL"
    changed = await transaction.execute(
        f"UPDATE users SET blocked_at = ? WHERE user_id = ? AND blocked_at {condition}",
        blocked_at,
        user_id,
    )
    return changed == 1
