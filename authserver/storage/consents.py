"""Consents that users gave and that may stand in for the next one, exactly as asked then."""

import hashlib

from authserver.storage.contract import Database, Transactional, Writes
from authserver.values import Value


class Given(Value, frozen=True):
    """A consent to remember; `question_hash` covers everything the page said."""

    question_hash: str
    client_id: str
    resource: str
    expires_at: int


class Consents:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def remembers(self, user_id: str, question_hash: str, now: float) -> bool:
        row = await self._database.fetch_one(
            "SELECT 1 FROM consents WHERE consent_hash = ? AND expires_at > ?",
            _hash(user_id, question_hash),
            int(now),
        )
        return row is not None


async def remember(writes: Writes, user_id: str, given: Given) -> None:
    """Store a consent, or its new end, within a sign-in's transaction."""
    await writes.execute(
        "INSERT INTO consents (consent_hash, user_id, client_id, resource, expires_at)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (consent_hash)"
        " DO UPDATE SET expires_at = excluded.expires_at",
        _hash(user_id, given.question_hash),
        user_id,
        given.client_id,
        given.resource,
        given.expires_at,
    )


async def forget_of(transaction: Transactional, tsid: str) -> None:
    """Forget what a session's user agreed to for its client and resource: ask again."""
    await transaction.execute(
        "DELETE FROM consents WHERE EXISTS (SELECT 1 FROM sessions s WHERE s.tsid = ?"
        " AND s.user_id = consents.user_id AND s.client_id = consents.client_id"
        " AND s.resource = consents.resource)",
        tsid,
    )


def _hash(user_id: str, question_hash: str) -> bytes:
    return hashlib.sha256(f"{question_hash} {user_id}".encode()).digest()
