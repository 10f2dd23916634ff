"""Sessions: one client's authorization by one user for one resource."""

from collections.abc import Iterable, Sequence
from typing import Any

from authserver.storage import consents, revocations
from authserver.storage.contract import Database, Transactional, Writes
from authserver.storage.records import Session
from chassis.spiffe_id import Workload

COLUMNS = (
    "tsid, user_id, client_id, resource, owner_namespace, owner_name, scope, created_at,"
    " expires_at, ended_at, signed_in_at, sign_in_required_at, upstreams, when_needed,"
    " declined_scopes, owner_uid"
)
BLOCKED_AT = "(SELECT u.blocked_at FROM users u WHERE u.user_id = sessions.user_id) AS blocked_at"
# What `session_of` reads, of the table itself and of one that is joined as `s`.
READ = f"{COLUMNS}, {BLOCKED_AT}"
READ_OF_S = ", ".join(
    [*(f"s.{name}" for name in COLUMNS.split(", ")), BLOCKED_AT.replace("sessions.", "s.")]
)

# An ended session expires at once, so that one index finds everything that is over.
_END = (
    "UPDATE sessions SET ended_at = ?, expires_at = ? WHERE tsid = ? AND ended_at IS NULL"
    " RETURNING owner_namespace, owner_name"
)


async def end_session(transaction: Transactional, tsid: str, now: int) -> bool:
    """End a session and record it for the sidecars; False where it had ended before."""
    row = await transaction.fetch_one(_END, now, now, tsid)
    if row is None:
        return False
    owner = Workload(row["owner_namespace"], row["owner_name"])
    await revocations.sessions_ended(transaction, [(tsid, owner)], now)
    return True


class Sessions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, writes: Writes, session: Session) -> None:
        """Store a session, within a sign-in's transaction."""
        await writes.execute(
            f"INSERT INTO sessions ({COLUMNS})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, NULL, ?, ?, ?, ?)",
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
            " ".join(session.declined_scopes),
            session.owner_uid,
        )

    async def get(self, tsid: str) -> Session | None:
        row = await self._database.fetch_one(f"SELECT {READ} FROM sessions WHERE tsid = ?", tsid)
        return session_of(row) if row else None

    async def has_client(self, client_id: str) -> bool:
        """Whether a client has a session, live or not yet swept away."""
        row = await self._database.fetch_one(
            "SELECT 1 FROM sessions WHERE client_id = ? LIMIT 1", client_id
        )
        return row is not None

    async def end(self, tsid: str, now: int) -> bool:
        """End a session, and forget what its user agreed to for it, in one atomic step.

        False for one that had ended before: that changes nothing.
        """
        async with self._database.transaction() as transaction:
            ended = await end_session(transaction, tsid, now)
            await consents.forget_of(transaction, tsid)
        return ended

    async def require_sign_in(self, tsid: str, upstream: str, *, now: int) -> None:
        """Note that a release of `upstream` was refused, because only a sign-in helps.

        An upstream that the user declined when the session began is not noted: its absence is
        no surprise, and a sign-in would only ask again.
        """
        session = await self.get(tsid)
        if (
            session is not None
            and not session.sign_in_required
            and upstream not in session.when_needed
        ):
            await self._database.write(
                "UPDATE sessions SET sign_in_required_at = ? WHERE tsid = ?", now, tsid
            )

    async def decline_scopes(
        self, user_id: str, client_id: str, resource: str, scopes: Sequence[str]
    ) -> None:
        """Remember for a client's sessions what their user was asked for and said no to."""
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch_all(
                "SELECT tsid, declined_scopes FROM sessions WHERE user_id = ? AND client_id = ?"
                " AND resource = ? AND ended_at IS NULL",
                user_id,
                client_id,
                resource,
            )
            for row in rows:
                known = dict.fromkeys((*row["declined_scopes"].split(), *scopes))
                await transaction.execute(
                    "UPDATE sessions SET declined_scopes = ? WHERE tsid = ?",
                    " ".join(known),
                    row["tsid"],
                )

    async def live_of_user(self, user_id: str, owner: Workload, now: float) -> list[Session]:
        """This user's live sessions at the servers of `owner`, oldest first."""
        rows = await self._database.fetch_all(
            f"SELECT {READ} FROM sessions WHERE user_id = ? AND owner_namespace = ?"
            " AND owner_name = ? AND ended_at IS NULL AND expires_at > ? ORDER BY created_at, tsid",
            user_id,
            owner.namespace,
            owner.name,
            int(now),
        )
        return [session_of(row) for row in rows]

    async def live(self, now: float) -> int:
        row = await self._database.fetch_one(
            "SELECT COUNT(*) AS n FROM sessions WHERE ended_at IS NULL AND expires_at > ?", int(now)
        )
        return int(row["n"]) if row else 0


def session_of(row: Iterable[Any]) -> Session:
    """The session in a row of `READ`, in its order."""
    tsid, user, client, resource, namespace, name, scope, created, expires, *rest = row
    ended, signed_in, required, upstreams, when_needed, declined, owner_uid, blocked_at = rest
    return Session(
        tsid, user, client, resource, Workload(namespace, name),
        scope, created, expires, ended, signed_in,
        sign_in_required=required is not None,
        upstreams=None if upstreams is None else tuple(upstreams.split()),
        when_needed=tuple(when_needed.split()),
        blocked=blocked_at is not None,
        declined_scopes=tuple(declined.split()),
        owner_uid=owner_uid,
    )  # fmt: skip


async def lift_required_sign_ins(writes: Writes, user_id: str, owner: Workload) -> None:
    """Within a sign-in's transaction: every session of this user and owner may refresh again."""
    await writes.execute(
        "UPDATE sessions SET sign_in_required_at = NULL WHERE user_id = ? AND owner_namespace = ?"
        " AND owner_name = ? AND sign_in_required_at IS NOT NULL",
        user_id,
        owner.namespace,
        owner.name,
    )


async def list_upstreams(transaction: Transactional, user_id: str, owner: Workload) -> None:
    """Before a connection is added: give sessions of earlier versions, which have no list, theirs.

    It is the upstreams there are connections for: what comes later, they did not name.
    """
    holder = (user_id, owner.namespace, owner.name)
    rows = await transaction.fetch_all(
        "SELECT upstream FROM connections WHERE user_id = ? AND owner_namespace = ?"
        " AND owner_name = ? ORDER BY upstream",
        *holder,
    )
    await transaction.execute(
        "UPDATE sessions SET upstreams = ? WHERE user_id = ? AND owner_namespace = ?"
        " AND owner_name = ? AND upstreams IS NULL",
        " ".join(row["upstream"] for row in rows),
        *holder,
    )


async def allow_upstream(transaction: Transactional, tsid: str, upstream: str) -> None:
    """Add an upstream that its user agreed to, to a session's list."""
    row = await transaction.fetch_one("SELECT upstreams FROM sessions WHERE tsid = ?", tsid)
    named = [] if row is None else row["upstreams"].split()
    if upstream not in named:
        await transaction.execute(
            "UPDATE sessions SET upstreams = ? WHERE tsid = ?", " ".join((*named, upstream)), tsid
        )
