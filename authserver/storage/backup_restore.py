"""After a restore from a backup: what the backup still believes, and must not act on."""

from authserver.storage.contract import Database
from authserver.storage.revocations import replace_identity
from authserver.values import Value


class Disowned(Value, frozen=True):
    """How many sessions were ended and how many connections need a new sign-in."""

    sessions: int
    connections: int


class Restoring:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def invalidate(self, now: int) -> Disowned:
        """End every session and give up every stored refresh token, in one step.

        Sessions that were revoked after the backup would otherwise live again, and upstream
        refresh tokens that were used after it would be presented a second time.
        """
        async with self._database.transaction() as transaction:
            await transaction.execute("DELETE FROM transactions")
            # Sidecars drop all that they hold: no row can name what ended after the backup.
            await replace_identity(transaction)
            ended = await transaction.execute(
                "UPDATE sessions SET ended_at = ?, expires_at = ? WHERE ended_at IS NULL", now, now
            )
            # Made again of what users sign in to.
            await transaction.execute("DELETE FROM exchanged_tokens")
            dead = await transaction.execute("UPDATE connections SET dead = 1 WHERE dead = 0")
        return Disowned(ended, dead)
