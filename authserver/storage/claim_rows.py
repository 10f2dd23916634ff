"""The claim on a connection's refresh token: taken by one holder, settled by its name.

A refresh token is presented upstream only under a claim. `claim` is recorded durably before the
upstream is called, `swap` stores the result before anyone gets it. A process that dies in between
leaves its claim behind, and after a lease another may take it over. Every later step names the
claim, so a holder that was overtaken changes nothing.

`first_claimed_at` outlives a claim whose outcome is unknown: since then the refresh token may have
been taken without an answer that we know.
"""

from typing import Final

from authserver.storage import revocations
from authserver.storage.connection_rows import SealedConnections, at, place_of
from authserver.storage.contract import Database
from authserver.storage.keyring import Keyring, key_id_of
from authserver.storage.records import ClientRegistration, Connection, UpstreamTokens
from authserver.values import Hidden, Value

# So many definite refusals are the end, and the last of them comes so long after the first:
# several of one moment may be one fault of the upstream.
MAX_REFUSALS: Final = 3
REFUSED_SECONDS: Final = 300


class Claim(Value, frozen=True):
    """A claim that was taken. `uncertain_since`: somebody may have presented the token before."""

    handle: Hidden[str]
    uncertain_since: int | None


class ClaimRows:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._sealed = database, SealedConnections(keyring)

    async def claim(
        self, connection: Connection, handle: str, now: int, *, overdue_before: int = 0
    ) -> Claim | None:
        """Take the right to present this generation's refresh token; at most one holds it.

        A claim that was last touched before `overdue_before` may be taken over. The first claim
        then lies before this one, were it of the same second or by a clock that is ahead.
        """
        table, at_key = place_of(connection.key)
        row = await self._database.write_returning(
            f"UPDATE {table} SET refresh_claim = ?, refresh_claimed_at = ?,"
            " first_claimed_at = CASE WHEN first_claimed_at IS NULL THEN ?"
            " WHEN first_claimed_at < ? THEN first_claimed_at ELSE ? END"
            f" WHERE {at_key} AND generation = ? AND dead = 0 AND (refresh_claim IS NULL"
            " OR refresh_claimed_at < ?) RETURNING first_claimed_at",
            handle,
            now,
            now,
            now,
            now - 1,
            *at(connection.key),
            connection.generation,
            overdue_before,
        )
        if row is None:
            return None
        first = int(row["first_claimed_at"])
        return Claim(handle, first if first < now else None)

    async def claimed_at(self, connection: Connection, handle: str) -> int | None:
        """When a claim that still stands was taken; None where it was taken over or settled."""
        table, at_key = place_of(connection.key)
        row = await self._database.fetch_one(
            f"SELECT refresh_claimed_at FROM {table} WHERE {at_key} AND generation = ?"
            " AND refresh_claim = ?",
            *at(connection.key),
            connection.generation,
            handle,
        )
        return None if row is None else int(row["refresh_claimed_at"])

    async def swap(
        self,
        connection: Connection,
        handle: str,
        tokens: UpstreamTokens,
        registration: ClientRegistration | None = None,
    ) -> Connection | None:
        """Store the next generation in place of the claimed one; None if the claim is gone.

        `registration` gave the tokens; that of the connection where it is None. A connection
        given up for dead meanwhile lives again: these tokens are its new ones.
        """
        registration = registration or connection.registration
        successor = Connection(
            connection.key,
            connection.generation + 1,
            connection.upstream_issuer,
            connection.upstream_subject,
            tokens,
            connection.asked_scope,
            registration=registration,
        )
        sealed = self._sealed.seal(successor)
        table, at_key = place_of(connection.key)
        # What was exchanged is made anew without the user, and goes when nobody renews it.
        column, moment = (
            ("renewed_at", int(tokens.obtained_at))
            if connection.key.made_of
            else ("needs_user_at", tokens.needs_user_at)
        )
        changed = await self._database.write(
            f"UPDATE {table} SET generation = ?, sealed_tokens = ?, sealed_under = ?, dead = 0,"
            " refresh_claim = NULL, refresh_claimed_at = NULL, first_claimed_at = NULL,"
            " refused_since = NULL, refusals = 0, rejected = 0,"
            f" authorization_server = ?, registered_client_id = ?, {column} = ?"
            f" WHERE {at_key} AND generation = ? AND refresh_claim = ?",
            successor.generation,
            sealed,
            key_id_of(sealed),
            registration.authorization_server if registration else None,
            registration.client_id if registration else None,
            moment,
            *at(connection.key),
            connection.generation,
            handle,
        )
        return successor if changed else None

    async def release_claim(
        self, connection: Connection, handle: str, *, refused_at: int | None = None
    ) -> None:
        """Give the claim back: the upstream certainly did not take the refresh token under it.

        Under an earlier one it may have been: that stays as unknown as it was. `refused_at`: the
        upstream turned this very token down. The refusal that completes MAX_REFUSALS is counted
        only REFUSED_SECONDS after the first.
        """
        table, at_key = place_of(connection.key)
        await self._database.write(
            f"UPDATE {table} SET refresh_claim = NULL, first_claimed_at = CASE"
            " WHEN first_claimed_at = refresh_claimed_at THEN NULL ELSE first_claimed_at END,"
            " refresh_claimed_at = NULL, refusals = refusals"
            " + CASE WHEN refusals < ? OR ? - refused_since >= ? THEN ? ELSE 0 END,"
            " refused_since = COALESCE(refused_since, ?)"
            f" WHERE {at_key} AND generation = ? AND refresh_claim = ?",
            MAX_REFUSALS - 1,
            refused_at or 0,
            REFUSED_SECONDS,
            0 if refused_at is None else 1,
            refused_at,
            *at(connection.key),
            connection.generation,
            handle,
        )

    async def mark_uncertain(self, connection: Connection, handle: str) -> None:
        """End the claim: the refresh token may have been taken, and nobody knows."""
        table, at_key = place_of(connection.key)
        await self._database.write(
            f"UPDATE {table} SET refresh_claim = NULL, refresh_claimed_at = NULL"
            f" WHERE {at_key} AND generation = ? AND refresh_claim = ?",
            *at(connection.key),
            connection.generation,
            handle,
        )

    async def mark_dead(self, connection: Connection, handle: str) -> bool:
        """This generation's refresh token can never be presented again: only a sign-in helps.

        False where `handle` is not the last claim on it any more: then somebody knows better.
        """
        table, at_key = place_of(connection.key)
        changed = await self._database.write(
            f"UPDATE {table} SET dead = 1 WHERE {at_key} AND generation = ? AND refresh_claim = ?",
            *at(connection.key),
            connection.generation,
            handle,
        )
        return changed == 1

    async def mark_rejected(self, connection: Connection, now: int) -> None:
        """Neither token of this generation is any good: nothing of it is released any more."""
        table, at_key = place_of(connection.key)
        async with self._database.transaction() as transaction:
            changed = await transaction.execute(
                f"UPDATE {table} SET dead = 1, rejected = 1 WHERE {at_key} AND generation = ?",
                *at(connection.key),
                connection.generation,
            )
            if changed:
                await revocations.connections_ended(transaction, [connection.key.root], now)
