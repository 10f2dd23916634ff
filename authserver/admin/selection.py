"""Which sessions and connections a command is about, as conditions on their rows."""

from authserver.values import Value
from chassis.spiffe_id import Workload

_HAS_CONNECTION = (
    "EXISTS (SELECT 1 FROM connections c WHERE c.user_id = sessions.user_id"
    " AND c.owner_namespace = sessions.owner_namespace AND c.owner_name = sessions.owner_name"
    " AND c.upstream = ?)"
)
_OF_CLIENT = (
    "EXISTS (SELECT 1 FROM sessions s WHERE s.user_id = connections.user_id"
    " AND s.owner_namespace = connections.owner_namespace"
    " AND s.owner_name = connections.owner_name AND s.client_id = ? AND s.ended_at IS NULL)"
)

Condition = tuple[str, tuple[object, ...]]


class Selection(Value, frozen=True):
    """Every member that is set must fit; an empty selection is everything."""

    user_id: str | None = None
    owner: Workload | None = None
    upstream: str | None = None
    client_id: str | None = None
    tsid: str | None = None

    @property
    def empty(self) -> bool:
        return self == Selection()

    def of_sessions(self, now: int) -> Condition:
        """Live sessions.

        The plus keeps SQLite from the index on `expires_at`: each page would be sorted anew.
        """
        parts: list[Condition] = [("ended_at IS NULL AND +expires_at > ?", (now,))]
        parts += self._common()
        if self.upstream is not None:
            parts.append((_HAS_CONNECTION, (self.upstream,)))
        if self.client_id is not None:
            parts.append(("client_id = ?", (self.client_id,)))
        if self.tsid is not None:
            parts.append(("tsid = ?", (self.tsid,)))
        return _together(parts)

    def of_connections(self) -> Condition:
        parts = self._common()
        if self.upstream is not None:
            parts.append(("upstream = ?", (self.upstream,)))
        if self.client_id is not None:
            parts.append((_OF_CLIENT, (self.client_id,)))
        return _together(parts)

    def of_exchanged(self) -> Condition:
        """Tokens that an exchange made; `upstream` is theirs, or the one that they are made of."""
        parts = self._common()
        if self.upstream is not None:
            parts.append(("upstream = ? OR made_of = ?", (self.upstream, self.upstream)))
        if self.client_id is not None:
            of_client = _OF_CLIENT.replace("connections.", "exchanged_tokens.")
            parts.append((of_client, (self.client_id,)))
        return _together(parts)

    def _common(self) -> list[Condition]:
        parts: list[Condition] = []
        if self.user_id is not None:
            parts.append(("user_id = ?", (self.user_id,)))
        if self.owner is not None:
            owner = (self.owner.namespace, self.owner.name)
            parts.append(("owner_namespace = ? AND owner_name = ?", owner))
        return parts


def _together(parts: list[Condition]) -> Condition:
    conditions = " AND ".join(f"({sql})" for sql, _ in parts) or "1 = 1"
    return conditions, tuple(value for _, values in parts for value in values)
