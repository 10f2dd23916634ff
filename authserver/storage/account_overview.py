"""Everything that one user has here: sessions with their use, and connections."""

from authserver.storage.connection_rows import COLUMNS as CONNECTION_COLUMNS
from authserver.storage.connection_rows import SealedConnections
from authserver.storage.contract import Database
from authserver.storage.keyring import Keyring
from authserver.storage.records import Connection, Session
from authserver.storage.sessions import READ_OF_S, session_of
from authserver.values import Value
from chassis.spiffe_id import Workload

# No person has as many. An end of all of them goes on page by page.
_PAGE = 500


class UsedSession(Value, frozen=True):
    """A live session, and when its client last began or renewed its use (Unix seconds)."""

    session: Session
    last_used: int


class AccountOverview:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._sealed = database, SealedConnections(keyring)

    async def sessions(
        self, user_id: str, now: float, *, resource: str | None = None
    ) -> list[UsedSession]:
        """A page of this user's live sessions, oldest first; at one resource, or at all."""
        only = "" if resource is None else " AND s.resource = ?"
        rows = await self._database.fetch_all(
            f"SELECT {READ_OF_S}, (SELECT MAX(r.used_at) FROM refresh_tokens r"
            " WHERE r.tsid = s.tsid) AS refreshed_at FROM sessions s WHERE s.user_id = ?"
            f" AND s.ended_at IS NULL AND s.expires_at > ?{only}"
            f" ORDER BY s.created_at, s.tsid LIMIT {_PAGE}",
            user_id,
            int(now),
            *(() if resource is None else (resource,)),
        )
        return [_used(*row) for row in rows]

    async def connections(self, user_id: str) -> dict[tuple[Workload, str], Connection]:
        """This user's connections, by owner and upstream; without those that do not open."""
        rows = await self._database.fetch_all(
            f"SELECT {CONNECTION_COLUMNS} FROM connections WHERE user_id = ?", user_id
        )
        opened = (self._sealed.open_if_whole(row) for row in rows)
        return {(one.key.owner, one.key.upstream): one for one in opened if one is not None}


def _used(*row: object) -> UsedSession:
    *columns, refreshed_at = row
    session = session_of(columns)
    last = refreshed_at if isinstance(refreshed_at, int) else session.created_at
    return UsedSession(session, max(last, session.created_at))
