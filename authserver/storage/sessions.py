"""Sessions, and the codes and refresh tokens that lead to them (kept as hashes only)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from authserver.storage import consents
from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.keyring import Keyring, key_id_of
from authserver.storage.records import Code, Session
from chassis.spiffe_id import Workload

_COLUMNS = (
    "tsid, user_id, client_id, resource, owner_namespace, owner_name, scope, created_at,"
    " expires_at, ended_at, signed_in_at, upstreams, when_needed"
)
# The same of a table that is joined as `s`.
_COLUMNS_OF_S = ", ".join(f"s.{name}" for name in _COLUMNS.split(", "))

# Named, never `*`: a migration that adds a column must leave an older replica's statements valid.
_CODE_COLUMNS = "tsid, client_id, redirect_uri, code_challenge, resource, nonce, redeemed_at"
_PRESENTED_COLUMNS = "token_hash, tsid, used_at, successor_hash, sealed_successor, expires_at"

# An ended session expires at once, so that one index finds everything that is over.
_END = "UPDATE sessions SET ended_at = ?, expires_at = ? WHERE tsid = ? AND ended_at IS NULL"


@dataclass(frozen=True)
class NewRefreshToken:
    """A refresh token about to be issued; only its hash is stored in the clear."""

    token: str = field(repr=False)
    token_hash: bytes = field(repr=False)
    expires_at: int


@dataclass(frozen=True)
class Rotated:
    """The presented token is used up; the new one took its place."""


@dataclass(frozen=True)
class Repeated:
    """The presented token was used a moment ago: its unused successor again."""

    successor: str = field(repr=False)


@dataclass(frozen=True)
class Reused:
    """A used-up token came back: somebody else may hold it. The session has been ended."""


class Sessions:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._keyring = database, keyring

    async def add(
        self,
        transaction: Transactional,
        session: Session,
        code_hash: bytes,
        code: Code,
        *,
        code_expires_at: int,
    ) -> None:
        """Store a session and the code that leads to it, within a sign-in's transaction."""
        await transaction.execute(
            f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?)",
            session.tsid,
            session.user_id,
            session.client_id,
            session.resource,
            session.owner.namespace,
            session.owner.name,
            session.scope,
            session.created_at,
            session.expires_at,
            session.signed_in_at,
            None if session.upstreams is None else " ".join(session.upstreams),
            " ".join(session.when_needed),
        )
        await transaction.execute(
            "INSERT INTO codes (code_hash, tsid, client_id, redirect_uri, code_challenge,"
            " resource, nonce, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            code_hash,
            code.tsid,
            code.client_id,
            code.redirect_uri,
            code.code_challenge,
            code.resource,
            code.nonce,
            code_expires_at,
        )

    async def code(self, code_hash: bytes, now: float) -> Code | None:
        """Look a code up without using it; a redeemed one is found as long as its session lasts."""
        row = await self._database.fetch_one(
            f"SELECT {_CODE_COLUMNS} FROM codes"
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
                f" RETURNING {_COLUMNS}",
                session_expires_at,
                redeemed["tsid"],
            )
            if row is None:
                return None
            if refresh_token is not None:
                await _add_refresh_token(transaction, row["tsid"], refresh_token)
            return _session_of(row)

    async def get(self, tsid: str) -> Session | None:
        row = await self._database.fetch_one(
            f"SELECT {_COLUMNS} FROM sessions WHERE tsid = ?", tsid
        )
        return _session_of(row) if row else None

    async def of_refresh_token(self, token_hash: bytes) -> Session | None:
        """The session a refresh token, used or not, belongs to."""
        row = await self._database.fetch_one(
            f"SELECT {_COLUMNS_OF_S} FROM refresh_tokens r JOIN sessions s ON s.tsid = r.tsid"
            " WHERE r.token_hash = ?",
            token_hash,
        )
        return _session_of(row) if row else None

    async def of_unused_refresh_token(self, token_hash: bytes, now: float) -> Session | None:
        """The session of a refresh token that can still be presented."""
        row = await self._database.fetch_one(
            f"SELECT {_COLUMNS_OF_S} FROM refresh_tokens r JOIN sessions s ON s.tsid = r.tsid"
            " WHERE r.token_hash = ? AND r.used_at IS NULL AND r.expires_at > ?",
            token_hash,
            int(now),
        )
        return _session_of(row) if row else None

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
                "SELECT ended_at, expires_at FROM sessions"
                " WHERE tsid = (SELECT tsid FROM refresh_tokens WHERE token_hash = ?)",
                presented,
            )
            row = await transaction.fetch_one(
                f"SELECT {_PRESENTED_COLUMNS} FROM refresh_tokens WHERE token_hash = ?",
                presented,
            )
            if session is None or row is None or session["ended_at"] is not None:
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
        await _add_refresh_token(transaction, tsid, successor)
        sealed = self._keyring.seal(successor.token.encode(), *successor_place(tsid, presented))
        await transaction.execute(
            "UPDATE refresh_tokens SET used_at = ?, successor_hash = ?, sealed_successor = ?,"
            " sealed_under = ? WHERE token_hash = ?",
            now,
            successor.token_hash,
            sealed,
            key_id_of(sealed),
            presented,
        )
        # The successor was used, so no grace is left in which its text may be needed.
        await transaction.execute(
            "UPDATE refresh_tokens SET sealed_successor = NULL, sealed_under = NULL"
            " WHERE successor_hash = ?",
            presented,
        )
        await transaction.execute(
            "UPDATE sessions SET expires_at = ? WHERE tsid = ?", successor.expires_at, tsid
        )

    async def _again(
        self, transaction: Transactional, row: Row, now: int, grace: int
    ) -> Repeated | Reused:
        unused_successor = await transaction.fetch_one(
            "SELECT 1 FROM refresh_tokens WHERE token_hash = ? AND used_at IS NULL",
            row["successor_hash"],
        )
        sealed = row["sealed_successor"]
        if unused_successor and sealed is not None and now - row["used_at"] <= grace:
            place = successor_place(row["tsid"], row["token_hash"])
            return Repeated(self._keyring.open(sealed, *place).decode())
        await transaction.execute(_END, now, now, row["tsid"])
        return Reused()

    async def has_client(self, client_id: str) -> bool:
        """Whether a client has a session, live or not yet swept away."""
        row = await self._database.fetch_one(
            "SELECT 1 FROM sessions WHERE client_id = ? LIMIT 1", client_id
        )
        return row is not None

    async def end(self, tsid: str, now: int) -> None:
        """End a session, and forget what its user agreed to for it, in one atomic step.

        Ending an ended one changes nothing.
        """
        async with self._database.transaction() as transaction:
            await transaction.execute(_END, now, now, tsid)
            await consents.forget_of(transaction, tsid)

    async def live(self, now: float) -> int:
        row = await self._database.fetch_one(
            "SELECT COUNT(*) AS n FROM sessions WHERE ended_at IS NULL AND expires_at > ?", int(now)
        )
        return int(row["n"]) if row else 0


async def _add_refresh_token(transaction: Transactional, tsid: str, token: NewRefreshToken) -> None:
    await transaction.execute(
        "INSERT INTO refresh_tokens (token_hash, tsid, expires_at) VALUES (?, ?, ?)",
        token.token_hash,
        tsid,
        token.expires_at,
    )


def _session_of(row: Iterable[Any]) -> Session:
    """The session in a row of `_COLUMNS`, in their order."""
    tsid, user, client, resource, namespace, name, scope, created, expires, *rest = row
    ended, signed_in, upstreams, when_needed = rest
    return Session(
        tsid, user, client, resource, Workload(namespace, name),
        scope, created, expires, ended, signed_in,
        upstreams=None if upstreams is None else tuple(upstreams.split()),
        when_needed=tuple(when_needed.split()),
    )  # fmt: skip


def successor_place(tsid: str, presented: bytes) -> tuple[str, ...]:
    """Where a sealed successor belongs: to its session and its predecessor."""
    return ("refresh_tokens", "sealed_successor", tsid, presented.hex())
