"""Sign-ins under way: sealed, single use, bound to the browser that started them."""

from typing import Final

import msgspec

from authserver.storage.contract import Database
from authserver.storage.keyring import Keyring, key_id_of
from authserver.storage.records import PendingSignIn, Stage

_MAX_PENDING: Final = 20_000
_TRIM_EVERY: Final = 64
_pending_of: Final = msgspec.json.Decoder(PendingSignIn).decode


class PendingSignIns:
    """At most about `max_pending` wait for a consent; beyond that the oldest go."""

    def __init__(
        self, database: Database, keyring: Keyring, *, max_pending: int = _MAX_PENDING
    ) -> None:
        self._database, self._keyring = database, keyring
        self._max_pending, self._until_trim = max_pending, 0

    async def put(
        self,
        handle_hash: bytes,
        stage: Stage,
        browser_hash: bytes,
        transaction: PendingSignIn,
        *,
        expires_at: int,
    ) -> None:
        """Store a transaction under the hash of a fresh handle."""
        await self._trim_sometimes()
        sealed = self._keyring.seal(
            msgspec.json.encode(transaction), *associated_data(handle_hash, stage)
        )
        await self._database.write(
            "INSERT INTO transactions (handle_hash, stage, browser_hash, upstream,"
            " sealed_transaction, sealed_under, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            handle_hash,
            stage,
            browser_hash,
            transaction.upstream,
            sealed,
            key_id_of(sealed),
            expires_at,
        )

    async def _trim_sometimes(self) -> None:
        """Delete the oldest of too many, every so often: counting costs more than a few rows."""
        self._until_trim -= 1
        if self._until_trim > 0:
            return
        self._until_trim = _TRIM_EVERY
        await self._database.write(
            "DELETE FROM transactions WHERE handle_hash IN (SELECT handle_hash FROM transactions"
            " WHERE stage = ? ORDER BY expires_at DESC LIMIT 1000000 OFFSET ?)",
            Stage.CONSENT,
            self._max_pending,
        )

    async def take(
        self, handle_hash: bytes, stage: Stage, browser_hash: bytes, *, upstream: str, now: float
    ) -> PendingSignIn | None:
        """Consume a transaction, in one atomic step, if all of this holds of it.

        A wrong browser, stage or upstream consumes nothing: nobody can use up the sign-in of
        somebody else.
        """
        row = await self._database.write_returning(
            "DELETE FROM transactions WHERE handle_hash = ? AND stage = ? AND browser_hash = ?"
            " AND upstream = ? AND expires_at > ? RETURNING sealed_transaction",
            handle_hash,
            stage,
            browser_hash,
            upstream,
            int(now),
        )
        if row is None:
            return None
        opened = self._keyring.open(row["sealed_transaction"], *associated_data(handle_hash, stage))
        return _pending_of(opened)


def associated_data(handle_hash: bytes, stage: str) -> tuple[str, ...]:
    """Where a sealed transaction belongs: to its handle and to what it waits for."""
    return ("transactions", "sealed_transaction", handle_hash.hex(), stage)
