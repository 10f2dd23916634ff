"""Connections: upstream tokens, sealed to their row and generation, and their refresh claims.

A refresh token is presented upstream only under a claim, and a claim is taken once per
generation: `claim` is recorded durably before the upstream is called, `swap` stores the result
before anyone gets it. A process that dies in between leaves a claim that nobody clears; whoever
took it in vain holds the fence, for every later step names the claim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from authserver.storage.connection_rows import COLUMNS, VALUES, SealedConnections, at
from authserver.storage.contract import Database, Transactional
from authserver.storage.keyring import Keyring, key_id_of
from authserver.storage.records import (
    Connection,
    ConnectionKey,
    Grant,
    UpstreamTokens,
)
from chassis.spiffe_id import Workload

_AT_KEY = "user_id = ? AND owner_namespace = ? AND owner_name = ? AND upstream = ?"
_OF_SESSION = (
    f"SELECT {VALUES} FROM sessions s LEFT JOIN connections c ON c.user_id = s.user_id"
    " AND c.owner_namespace = s.owner_namespace AND c.owner_name = s.owner_name"
    " AND c.upstream = ? WHERE s.tsid = ? AND s.user_id = ? AND s.client_id = ?"
    " AND s.resource = ? AND s.owner_namespace = ? AND s.owner_name = ?"
    " AND s.ended_at IS NULL AND s.expires_at > ?"
)
_LIVE_SESSION = (
    "SELECT 1 FROM sessions s WHERE s.user_id = connections.user_id"
    " AND s.owner_namespace = connections.owner_namespace"
    " AND s.owner_name = connections.owner_name AND s.ended_at IS NULL AND s.expires_at > ?"
)


class NoSuchSession(Exception):
    """No live session is all that its token and the resource map say of it."""


@dataclass(frozen=True)
class StaleClaimRule:
    """Which claims of dead processes may be taken over: last touched and first taken when."""

    claimed_before: int = 0
    first_claimed_after: int = 0


class Connections:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._sealed = database, SealedConnections(keyring)

    async def of_session(
        self, tsid: str, key: ConnectionKey, *, client_id: str, resource: str, now: float
    ) -> Connection | None:
        """The connection at `key` of a session that is bound to exactly all this, in one read.

        Raises NoSuchSession, for one of somebody else just as for one that does not exist.
        """
        user_id, namespace, name, upstream = at(key)
        row = await self._database.fetch_one(
            _OF_SESSION, upstream, tsid, user_id, client_id, resource, namespace, name, int(now)
        )
        if row is None:
            raise NoSuchSession
        return None if row["generation"] is None else self._sealed.open_at(key, row)

    async def get(self, key: ConnectionKey) -> Connection | None:
        row = await self._database.fetch_one(
            f"SELECT {COLUMNS} FROM connections WHERE {_AT_KEY}",
            *at(key),
        )
        return self._sealed.open(row) if row else None

    async def of_user(self, user_id: str, owner: Workload) -> dict[str, Connection]:
        """What this user has with `owner`, by upstream."""
        rows = await self._database.fetch_all(
            f"SELECT {COLUMNS} FROM connections"
            " WHERE user_id = ? AND owner_namespace = ? AND owner_name = ?",
            user_id,
            owner.namespace,
            owner.name,
        )
        return {row["upstream"]: self._sealed.open(row) for row in rows}

    async def claim(self, found: Connection, claim: str, now: int, left: StaleClaimRule) -> bool:
        """Take the right to present this generation's refresh token; at most one holds it.

        A claim that was left behind may be taken over, as far as `left` allows. The first claim
        then lies before this one, were it of the same second or by a clock that is ahead.
        """
        changed = await self._database.write(
            "UPDATE connections SET refresh_claim = ?, refresh_claimed_at = ?,"
            " first_claimed_at = CASE WHEN refresh_claim IS NULL THEN ?"
            " WHEN first_claimed_at < ? THEN first_claimed_at ELSE ? END"
            f" WHERE {_AT_KEY} AND generation = ? AND dead = 0 AND (refresh_claim IS NULL"
            " OR (refresh_claimed_at < ? AND first_claimed_at >= ?))",
            claim,
            now,
            now,
            now,
            now - 1,
            *at(found.key),
            found.generation,
            left.claimed_before,
            left.first_claimed_after,
        )
        return changed == 1

    async def swap(
        self, found: Connection, claim: str, tokens: UpstreamTokens
    ) -> Connection | None:
        """Store the next generation in place of the claimed one; None if the claim is gone.

        A connection given up for dead meanwhile lives again: these tokens are its new ones.
        """
        successor = replace(
            found,
            generation=found.generation + 1,
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
            f" WHERE {_AT_KEY} AND generation = ? AND refresh_claim = ?",
            successor.generation,
            sealed,
            key_id_of(sealed),
            *at(found.key),
            found.generation,
            claim,
        )
        return successor if changed else None

    async def release_claim(self, found: Connection, claim: str) -> None:
        """Give the claim back: the upstream certainly did not take the refresh token under it.

        One that was taken over is left behind again: under an earlier one it may have been.
        """
        changed = await self._database.write(
            "UPDATE connections SET refresh_claim = NULL, refresh_claimed_at = NULL,"
            f" first_claimed_at = NULL WHERE {_AT_KEY} AND generation = ? AND refresh_claim = ?"
            " AND first_claimed_at = refresh_claimed_at",
            *at(found.key),
            found.generation,
            claim,
        )
        if not changed:
            await self.mark_uncertain(found, claim)

    async def mark_uncertain(self, found: Connection, claim: str) -> None:
        """Leave the claim behind: the refresh token may have been taken, by whoever held it."""
        await self._database.write(
            f"UPDATE connections SET refresh_claimed_at = 0 WHERE {_AT_KEY} AND generation = ?"
            " AND refresh_claim = ?",
            *at(found.key),
            found.generation,
            claim,
        )

    async def mark_dead(self, found: Connection, claim: str) -> bool:
        """This generation's refresh token can never be presented again: only a sign-in helps.

        False where `claim` is not the last one on it any more: then somebody knows better.
        """
        changed = await self._database.write(
            f"UPDATE connections SET dead = 1 WHERE {_AT_KEY} AND generation = ?"
            " AND refresh_claim = ?",
            *at(found.key),
            found.generation,
            claim,
        )
        return changed == 1

    async def purge_unused(self, user_id: str, owner: Workload, now: int) -> list[Connection]:
        """Delete, in one step, this user's connections for `owner` if no live session is left.

        Returns what was deleted and can be opened, for revocation at the upstream.
        """
        async with self._database.transaction() as transaction:
            # Without this, the session of a sign-in that commits just now could be overlooked.
            await transaction.fetch_locked("SELECT 1 FROM users WHERE user_id = ?", user_id)
            rows = await transaction.fetch_all(
                f"DELETE FROM connections WHERE user_id = ? AND owner_namespace = ?"
                f" AND owner_name = ? AND NOT EXISTS ({_LIVE_SESSION}) RETURNING {COLUMNS}",
                user_id,
                owner.namespace,
                owner.name,
                now,
            )
        return [found for row in rows if (found := self._sealed.open_if_whole(row)) is not None]

    async def counts(self) -> Sequence[tuple[str, bool, int]]:
        """(upstream, dead, how many) over all connections."""
        rows = await self._database.fetch_all(
            "SELECT upstream, dead, COUNT(*) AS n FROM connections GROUP BY upstream, dead"
        )
        return [(row["upstream"], bool(row["dead"]), row["n"]) for row in rows]

    async def put(
        self, transaction: Transactional, user_id: str, owner: Workload, grant: Grant
    ) -> None:
        """Store what a sign-in gave, within its transaction, as the next generation.

        Where the upstream gave no refresh token this time, the stored one of the same upstream
        account stays in use, unless somebody is presenting it right now.
        """
        key = ConnectionKey(user_id, owner, grant.upstream)
        # Locked: a refresh that starts just now must not present what is carried over here.
        row = await transaction.fetch_locked(
            f"SELECT {COLUMNS} FROM connections WHERE {_AT_KEY}",
            *at(key),
        )
        before = self._sealed.open_if_whole(row) if row else None
        after = Connection(
            key,
            row["generation"] + 1 if row else 1,
            grant.upstream_issuer,
            grant.upstream_subject,
            _carry_refresh_token(before, grant),
            grant.asked_scope,
        )
        sealed = self._sealed.seal(after)
        await transaction.execute(f"DELETE FROM connections WHERE {_AT_KEY}", *at(key))
        await transaction.execute(
            "INSERT INTO connections (user_id, owner_namespace, owner_name, upstream, generation,"
            " upstream_issuer, upstream_subject, asked_scope, sealed_tokens, sealed_under)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *at(key),
            after.generation,
            after.upstream_issuer,
            after.upstream_subject,
            after.asked_scope,
            sealed,
            key_id_of(sealed),
        )


def _carry_refresh_token(before: Connection | None, grant: Grant) -> UpstreamTokens:
    if (
        grant.tokens.refresh_token is None
        and before is not None
        and not before.dead
        and before.refresh_claimed_at is None
        and before.upstream_issuer == grant.upstream_issuer
        and before.upstream_subject == grant.upstream_subject
    ):
        return replace(grant.tokens, refresh_token=before.tokens.refresh_token)
    return grant.tokens
