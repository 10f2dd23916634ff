"""What operators' commands did, on its way to the audit trail.

A command runs as a process of its own, whose log nobody collects. So its event is stored in the
transaction that acts, or after it, and a running authserver writes it to the trail.
"""

import json
import secrets
from collections.abc import Mapping

from authserver.storage.contract import Database
from authserver.values import Value

_BATCH = 100


class OperatorEvent(Value, frozen=True):
    """One command: `fields` are texts and counts for the audit trail."""

    event_id: str
    fields: Mapping[str, str | int]


class OperatorEvents:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, fields: Mapping[str, str | int], now: int) -> None:
        await self._database.write(
            "INSERT INTO operator_events (event_id, fields, written_at) VALUES (?, ?, ?)",
            secrets.token_urlsafe(12),
            json.dumps(fields),
            now,
        )

    async def waiting(self) -> list[OperatorEvent]:
        """Up to a batch of those that no trail has yet, the oldest first."""
        rows = await self._database.fetch_all(
            f"SELECT event_id, fields FROM operator_events ORDER BY written_at LIMIT {_BATCH}"
        )
        return [OperatorEvent(row["event_id"], json.loads(row["fields"])) for row in rows]

    async def forget(self, event: OperatorEvent) -> None:
        await self._database.write("DELETE FROM operator_events WHERE event_id = ?", event.event_id)
