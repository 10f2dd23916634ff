"""Refresh tokens of clients: kept as hashes only, rotated, and each used once (RFC 9700 4.14)."""

from authserver.storage.contract import Database, Row, Transactional, Writes
from authserver.storage.keyring import Keyring, key_id_of
from authserver.storage.records import Session
from authserver.storage.sessions import BLOCKED_AT, READ_OF_S, end_session, session_of
from authserver.values import Hidden, Value

# Named, never `*`: a migration that adds a column must leave an older replica's statements valid.
_COLUMNS = "token_hash, tsid, used_at, successor_hash, sealed_successor, expires_at"


class NewRefreshToken(Value, frozen=True):
    """A refresh token about to be issued; only its hash is stored in the clear."""

    token: Hidden[str]
    token_hash: Hidden[bytes]
    expires_at: int


class Rotated(Value, frozen=True):
    """The presented token is used up; the new one took its place."""


class Repeated(Value, frozen=True):
    """The presented token was used a moment ago: its unused successor again, and its end."""

    successor: Hidden[str]
    expires_at: int


class Reused(Value, frozen=True):
    """A used-up token came back: somebody else may hold it. The session has been ended."""


class RefreshTokens:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._keyring = database, keyring

    async def session(self, token_hash: bytes) -> Session | None:
        """The session a refresh token, used or not, belongs to."""
        row = await self._database.look_up(
            f"SELECT {READ_OF_S} FROM refresh_tokens r JOIN sessions s ON s.tsid = r.tsid"
            " WHERE r.token_hash = ?",
            token_hash,
        )
        return session_of(row) if row else None

    async def session_of_unused(self, token_hash: bytes, now: float) -> Session | None:
        """The session of a refresh token that can still be presented."""
        row = await self._database.fetch_one(
            f"SELECT {READ_OF_S} FROM refresh_tokens r JOIN sessions s ON s.tsid = r.tsid"
            " WHERE r.token_hash = ? AND r.used_at IS NULL AND r.expires_at > ?",
            token_hash,
            int(now),
        )
        return session_of(row) if row else None

    async def rotate(
        self, presented: bytes, successor: NewRefreshToken, *, now: int, grace: int
    ) -> Rotated | Repeated | Reused | None:
        """Replace a refresh token by its successor, in one atomic step (RFC 9700 section 4.14).

        Within `grace` seconds the immediate predecessor gets the same successor again, while
        that is unused; any other reuse ends the session. None for an unknown or expired token
        or an ended session.
        """
        async with self._database.transaction() as transaction:
            # All that happens to a session's tokens happens one after the other.
            session = await transaction.fetch_locked(
                f"SELECT ended_at, expires_at, {BLOCKED_AT} FROM sessions"
                " WHERE tsid = (SELECT tsid FROM refresh_tokens WHERE token_hash = ?)",
                presented,
            )
            row = await transaction.fetch_one(
                f"SELECT {_COLUMNS} FROM refresh_tokens WHERE token_hash = ?", presented
            )
            if session is None or row is None or session["ended_at"] is not None:
                return None
            if session["blocked_at"] is not None:
                return None
            if row["used_at"] is not None:
                return await self._again(transaction, row, now, grace)
            if now >= row["expires_at"] or now >= session["expires_at"]:
                return None
            await self._succeed(transaction, row, successor, now)
            return Rotated()

    async def _succeed(
        self, transaction: Transactional, row: Row, successor: NewRefreshToken, now: int
    ) -> None:
        tsid, presented = row["tsid"], row["token_hash"]
        sealed = self._keyring.seal(successor.token.encode(), *successor_place(tsid, presented))
        async with transaction.together() as writes:
            await add_refresh_token(writes, tsid, successor)
            await writes.execute(
                "UPDATE refresh_tokens SET used_at = ?, successor_hash = ?, sealed_successor = ?,"
                " sealed_under = ? WHERE token_hash = ?",
                now,
                successor.token_hash,
                sealed,
                key_id_of(sealed),
                presented,
            )
            # The successor was used, so no grace is left in which its text may be needed.
            await writes.execute(
                "UPDATE refresh_tokens SET sealed_successor = NULL, sealed_under = NULL"
                " WHERE successor_hash = ?",
                presented,
            )
            await writes.execute(
                "UPDATE sessions SET expires_at = ? WHERE tsid = ?", successor.expires_at, tsid
            )

    async def _again(
        self, transaction: Transactional, row: Row, now: int, grace: int
    ) -> Repeated | Reused:
        unused_successor = await transaction.fetch_one(
            "SELECT expires_at FROM refresh_tokens WHERE token_hash = ? AND used_at IS NULL",
            row["successor_hash"],
        )
        sealed = row["sealed_successor"]
        if unused_successor and sealed is not None and now - row["used_at"] <= grace:
            place = successor_place(row["tsid"], row["token_hash"])
            token = self._keyring.open(sealed, *place).decode()
            return Repeated(token, unused_successor["expires_at"])
        await end_session(transaction, row["tsid"], now)
        return Reused()


async def add_refresh_token(writes: Writes, tsid: str, token: NewRefreshToken) -> None:
    await writes.execute(
        "INSERT INTO refresh_tokens (token_hash, tsid, expires_at) VALUES (?, ?, ?)",
        token.token_hash,
        tsid,
        token.expires_at,
    )


def successor_place(tsid: str, presented: bytes) -> tuple[str, ...]:
    """Where a sealed successor belongs: to its session and its predecessor."""
    return ("refresh_tokens", "sealed_successor", tsid, presented.hex())
