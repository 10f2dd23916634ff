"""A connection as its row: which columns, and its tokens sealed to that row and generation."""

from collections.abc import Iterable
from typing import Any

import msgspec

from authserver.storage.contract import Row
from authserver.storage.keyring import DecryptionFailed, Keyring
from authserver.storage.records import Connection, ConnectionKey, UpstreamTokens
from chassis.logs import Log
from chassis.spiffe_id import Workload

_log = Log("storage")

VALUES = (
    "generation, upstream_issuer, upstream_subject, asked_scope, sealed_tokens, dead,"
    " refresh_claim, refresh_claimed_at, first_claimed_at"
)
AT_KEY = "user_id = ? AND owner_namespace = ? AND owner_name = ? AND upstream = ?"
COLUMNS = f"user_id, owner_namespace, owner_name, upstream, {VALUES}"

_tokens_of = msgspec.json.Decoder(UpstreamTokens).decode


class SealedConnections:
    """Connections to and from their rows, under a keyring."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, connection: Connection) -> bytes:
        """The connection's tokens, for its row's `sealed_tokens`."""
        return self._keyring.seal(
            msgspec.json.encode(connection.tokens),
            *associated_data(*at(connection.key), connection.generation),
        )

    def open(self, row: Row) -> Connection:
        """The connection in a row of `COLUMNS`. Raises DecryptionFailed."""
        user_id, namespace, name, upstream, *values = row
        return self.open_at(ConnectionKey(user_id, Workload(namespace, name), upstream), values)

    def open_at(self, key: ConnectionKey, values: Iterable[Any]) -> Connection:
        """The connection at `key`, whose row holds these `VALUES` in this order.

        Raises DecryptionFailed.
        """
        generation, issuer, subject, asked_scope, sealed, dead, claim, claimed_at, first = values
        tokens = self._keyring.open(sealed, *associated_data(*at(key), generation))
        return Connection(
            key, generation, issuer, subject, _tokens_of(tokens), asked_scope,
            bool(dead), claim, claimed_at, first,
        )  # fmt: skip

    def open_if_whole(self, row: Row) -> Connection | None:
        """None where it does not open: what is to be replaced or deleted may be lost already."""
        try:
            return self.open(row)
        except DecryptionFailed:
            _log.error("sealed_record_unreadable")
            return None


def at(key: ConnectionKey) -> tuple[str, str, str, str]:
    """The columns that find a connection."""
    return (key.user_id, key.owner.namespace, key.owner.name, key.upstream)


def associated_data(
    user_id: str, owner_namespace: str, owner_name: str, upstream: str, generation: int
) -> tuple[str | int, ...]:
    """Where sealed tokens belong: to one generation of one connection."""
    return (
        "connections",
        "sealed_tokens",
        user_id,
        owner_namespace,
        owner_name,
        upstream,
        generation,
    )
