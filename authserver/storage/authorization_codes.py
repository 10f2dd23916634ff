"""Authorization codes, kept as hashes only; each leads to one session, once."""

from authserver.storage.contract import Database, Writes
from authserver.storage.records import Code, Session
from authserver.storage.refresh_tokens import NewRefreshToken, add_refresh_token
from authserver.storage.sessions import READ, session_of

# Named, never `*`: a migration that adds a column must leave an older replica's statements valid.
_COLUMNS = "tsid, client_id, redirect_uri, code_challenge, resource, nonce, redeemed_at"


class AuthorizationCodes:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, writes: Writes, code_hash: bytes, code: Code, *, expires_at: int) -> None:
        """Store a code, within the transaction that stores its session."""
        await writes.execute(
            "INSERT INTO codes (code_hash, tsid, client_id, redirect_uri, code_challenge,"
            " resource, nonce, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            code_hash,
            code.tsid,
            code.client_id,
            code.redirect_uri,
            code.code_challenge,
            code.resource,
            code.nonce,
            expires_at,
        )

    async def get(self, code_hash: bytes, now: float) -> Code | None:
        """Look a code up without using it; a redeemed one is found as long as its session lasts."""
        row = await self._database.fetch_one(
            f"SELECT {_COLUMNS} FROM codes"
            " WHERE code_hash = ? AND (redeemed_at IS NOT NULL OR expires_at > ?)",
            code_hash,
            int(now),
        )
        if row is None:
            return None
        tsid, client_id, redirect_uri, challenge, resource, nonce, redeemed_at = row
        return Code(
            tsid, client_id, redirect_uri, challenge, resource, nonce,
            redeemed=redeemed_at is not None,
        )  # fmt: skip

    async def redeem(
        self,
        code_hash: bytes,
        *,
        now: int,
        session_expires_at: int,
        refresh_token: NewRefreshToken | None,
    ) -> Session | None:
        """Use a code up, in one atomic step, and give its session its life; None if it was used."""
        async with self._database.transaction() as transaction:
            redeemed = await transaction.fetch_one(
                "UPDATE codes SET redeemed_at = ? WHERE code_hash = ? AND redeemed_at IS NULL"
                " AND expires_at > ? RETURNING tsid",
                now,
                code_hash,
                now,
            )
            if redeemed is None:
                return None
            row = await transaction.fetch_one(
                "UPDATE sessions SET expires_at = ? WHERE tsid = ? AND ended_at IS NULL"
                f" RETURNING {READ}",
                session_expires_at,
                redeemed["tsid"],
            )
            if row is None:
                return None
            if refresh_token is not None:
                await add_refresh_token(transaction, row["tsid"], refresh_token)
            return session_of(row)
