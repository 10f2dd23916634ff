"""Sessions: one client's authorization by one user for one resource."""

from collections.abc import Iterable
from typing import Any

from authserver.storage import consents
from authserver.storage.contract import Database, Transactional
from authserver.storage.records import Session
from chassis.spiffe_id import Workload

COLUMNS = (
    "tsid, user_id, client_id, resource, owner_namespace, owner_name, scope, created_at,"
    " expires_at, ended_at, signed_in_at"
)
# The same of a table that is joined as `s`.
COLUMNS_OF_S = ", ".join(f"s.{name}" for name in COLUMNS.split(", "))

# An ended session expires at once, so that one index finds everything that is over.
END = "UPDATE sessions SET ended_at = ?, expires_at = ? WHERE tsid = ? AND ended_at IS NULL"


class Sessions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, transaction: Transactional, session: Session) -> None:
        """Store a session, within a sign-in's transaction."""
        await transaction.execute(
            f"INSERT INTO sessions ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
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
        )

    async def get(self, tsid: str) -> Session | None:
        row = await self._database.fetch_one(f"SELECT {COLUMNS} FROM sessions WHERE tsid = ?", tsid)
        return session_of(row) if row else None

    async def end(self, tsid: str, now: int) -> None:
        """End a session, and forget what its user agreed to for it, in one atomic step.

        Ending an ended one changes nothing.
        """
        async with self._database.transaction() as transaction:
            await transaction.execute(END, now, now, tsid)
            await consents.forget_of(transaction, tsid)

    async def live(self, now: float) -> int:
        row = await self._database.fetch_one(
            "SELECT COUNT(*) AS n FROM sessions WHERE ended_at IS NULL AND expires_at > ?", int(now)
        )
        return int(row["n"]) if row else 0


def session_of(row: Iterable[Any]) -> Session:
    """The session in a row of `COLUMNS`, in their order."""
    tsid, user, client, resource, namespace, name, scope, created, expires, ended, signed_in = row
    return Session(
        tsid, user, client, resource, Workload(namespace, name),
        scope, created, expires, ended, signed_in,
    )  # fmt: skip
