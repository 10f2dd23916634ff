"""The claim on a connection's refresh token: taken by one holder, settled by its name.

A refresh token is presented upstream only under a claim, and a claim is taken once per
generation: `claim` is recorded durably before the upstream is called, `swap` stores the result
before anyone gets it. A process that dies in between leaves its claim behind. Every later step
names the claim, so a holder that was overtaken changes nothing.
"""

from dataclasses import dataclass, replace

from authserver.storage.connection_rows import AT_KEY, SealedConnections, at
from authserver.storage.contract import Database
from authserver.storage.keyring import Keyring, key_id_of
from authserver.storage.records import Connection, UpstreamTokens


@dataclass(frozen=True)
class StaleClaimRule:
    """Which claims of dead processes may be taken over: last touched and first taken when."""

    claimed_before: int = 0
    first_claimed_after: int = 0


class ClaimRows:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._sealed = database, SealedConnections(keyring)

    async def claim(
        self, connection: Connection, claim: str, now: int, left: StaleClaimRule
    ) -> bool:
        """Take the right to present this generation's refresh token; at most one holds it.

        A claim that was left behind may be taken over, as far as `left` allows. The first claim
        then lies before this one, were it of the same second or by a clock that is ahead.
        """
        changed = await self._database.write(
            "UPDATE connections SET refresh_claim = ?, refresh_claimed_at = ?,"
            " first_claimed_at = CASE WHEN refresh_claim IS NULL THEN ?"
            " WHEN first_claimed_at < ? THEN first_claimed_at ELSE ? END"
            f" WHERE {AT_KEY} AND generation = ? AND dead = 0 AND (refresh_claim IS NULL"
            " OR (refresh_claimed_at < ? AND first_claimed_at >= ?))",
            claim,
            now,
            now,
            now,
            now - 1,
            *at(connection.key),
            connection.generation,
            left.claimed_before,
            left.first_claimed_after,
        )
        return changed == 1

    async def swap(
        self, connection: Connection, claim: str, tokens: UpstreamTokens
    ) -> Connection | None:
        """Store the next generation in place of the claimed one; None if the claim is gone.

        A connection given up for dead meanwhile lives again: these tokens are its new ones.
        """
        successor = replace(
            connection,
            generation=connection.generation + 1,
            tokens=tokens,
            dead=False,
            refresh_claim=None,
            refresh_claimed_at=None,
            first_claimed_at=None,
        )
        sealed = self._sealed.seal(successor)
        changed = await self._database.write(
            "UPDATE connections SET generation = ?, sealed_tokens = ?, sealed_under = ?, dead = 0,"
            " refresh_claim = NULL, refresh_claimed_at = NULL, first_claimed_at = NULL"
            f" WHERE {AT_KEY} AND generation = ? AND refresh_claim = ?",
            successor.generation,
            sealed,
            key_id_of(sealed),
            *at(connection.key),
            connection.generation,
            claim,
        )
        return successor if changed else None

    async def release_claim(self, connection: Connection, claim: str) -> None:
        """Give the claim back: the upstream certainly did not take the refresh token under it.

        One that was taken over is left behind again: under an earlier one it may have been.
        """
        changed = await self._database.write(
            "UPDATE connections SET refresh_claim = NULL, refresh_claimed_at = NULL,"
            f" first_claimed_at = NULL WHERE {AT_KEY} AND generation = ? AND refresh_claim = ?"
            " AND first_claimed_at = refresh_claimed_at",
            *at(connection.key),
            connection.generation,
            claim,
        )
        if not changed:
            await self.mark_uncertain(connection, claim)

    async def mark_uncertain(self, connection: Connection, claim: str) -> None:
        """Leave the claim behind: the refresh token may have been taken, by whoever held it."""
        await self._database.write(
            f"UPDATE connections SET refresh_claimed_at = 0 WHERE {AT_KEY} AND generation = ?"
            " AND refresh_claim = ?",
            *at(connection.key),
            connection.generation,
            claim,
        )

    async def mark_dead(self, connection: Connection, claim: str) -> bool:
        """This generation's refresh token can never be presented again: only a sign-in helps.

        False where `claim` is not the last one on it any more: then somebody knows better.
        """
        changed = await self._database.write(
            f"UPDATE connections SET dead = 1 WHERE {AT_KEY} AND generation = ?"
            " AND refresh_claim = ?",
            *at(connection.key),
            connection.generation,
            claim,
        )
        return changed == 1
