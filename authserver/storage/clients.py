"""Registered clients: durable once used, expiring while never used."""

import json

from msgspec.structs import asdict

from authserver.storage.contract import Database, Row
from authserver.storage.records import Client


class Clients:
    """Dynamic registrations (RFC 7591)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, client: Client, *, now: int, expires_at: int, max_unused: int) -> None:
        """Store a new registration; it expires unless `keep` is called.

        Of the registrations that nobody has used, the newest `max_unused` stay.
        """
        async with self._database.transaction() as transaction:
            await transaction.execute(
                "DELETE FROM clients WHERE client_id IN (SELECT client_id FROM clients"
                " WHERE expires_at IS NOT NULL ORDER BY expires_at DESC, client_id"
                " LIMIT 1000000 OFFSET ?)",
                max_unused - 1,
            )
            await transaction.execute(
                "INSERT INTO clients (client_id, metadata, secret_hash, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?)",
                client.client_id,
                _metadata(client),
                client.secret_hash,
                now,
                expires_at,
            )

    async def get(self, client_id: str, now: float) -> Client | None:
        row = await self._database.look_up(
            "SELECT metadata, secret_hash FROM clients"
            " WHERE client_id = ? AND (expires_at IS NULL OR expires_at > ?)",
            client_id,
            int(now),
        )
        return _client(row) if row else None

    async def keep(self, client_id: str) -> None:
        """The client was used: its registration no longer expires."""
        await self._database.write(
            "UPDATE clients SET expires_at = NULL WHERE client_id = ? AND expires_at IS NOT NULL",
            client_id,
        )


def _metadata(client: Client) -> str:
    return json.dumps({k: v for k, v in asdict(client).items() if k != "secret_hash"})


def _client(row: Row) -> Client:
    stored = json.loads(row["metadata"])
    for name in ("redirect_uris", "auth_methods", "grant_types"):
        stored[name] = tuple(stored[name])
    return Client(**stored, secret_hash=row["secret_hash"])
