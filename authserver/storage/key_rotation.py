"""Which encryption key seals what: the check before a start, the rewrap, the end of a lost key.

A rewrap works beside running authservers: a value is replaced only while it is still the one
that was read. It needs no memory of its own, for what it has done no longer names the old key.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final

from authserver.storage import (
    accounts,
    audit_keys,
    connection_rows,
    pending_sign_ins,
    refresh_tokens,
    revocations,
    upstream_revocations,
)
from authserver.storage.contract import Database, Row, StorageOpenError, Transactional
from authserver.storage.keyring import DecryptionFailed, Keyring, key_id_of
from authserver.storage.records import ConnectionKey
from authserver.values import Value
from chassis.spiffe_id import Workload

_BATCH: Final = 100
_MAX_UNREADABLE: Final = 1000


class _Sealed(Value, frozen=True):
    """A sealed column, its row's key, and where a value of it may belong: in one of these places.

    `also` are columns that say where, beside those of the key.
    """

    table: str
    column: str
    key: tuple[str, ...]
    contexts: Callable[[Row], Sequence[Sequence[str | int]]]
    forget: str
    also: tuple[str, ...] = ()


def _contexts_of_connection(row: Row) -> list[Sequence[str | int]]:
    """Of its registration, or of none: an earlier version may have written the row since."""
    place = (row["user_id"], row["owner_namespace"], row["owner_name"], row["upstream"])
    registration = connection_rows.registration_of(
        row["authorization_server"], row["registered_client_id"]
    )
    return [
        connection_rows.associated_data(*place, row["generation"], one)
        for one in dict.fromkeys((registration, None))
    ]


def _context_of_exchanged(row: Row) -> list[Sequence[str | int]]:
    registration = connection_rows.registration_of(
        row["authorization_server"], row["registered_client_id"]
    )
    place = {name: row[name] for name in _EXCHANGED_KEY}
    return [connection_rows.exchanged_data(**place, registration=registration)]


_EXCHANGED_KEY: Final = (
    "user_id", "owner_namespace", "owner_name", "made_of", "upstream", "variant", "generation",
)  # fmt: skip
_QUEUED_PLACE: Final = (
    "revocation_id", "user_id", "owner_namespace", "owner_name", "upstream", "made_of",
    "upstream_issuer", "upstream_subject", "authorization_server", "registered_client_id",
)  # fmt: skip
_SEALED: Final = (
    _Sealed(
        "upstream_revocations",
        "sealed_tokens",
        _QUEUED_PLACE[:1],
        lambda row: [upstream_revocations.associated_data(*(row[name] for name in _QUEUED_PLACE))],
        "DELETE FROM upstream_revocations",
        _QUEUED_PLACE[1:],
    ),
    _Sealed(
        "exchanged_tokens",
        "sealed_tokens",
        _EXCHANGED_KEY,
        _context_of_exchanged,
        "DELETE FROM exchanged_tokens",
        ("authorization_server", "registered_client_id"),
    ),
    _Sealed(
        "connections",
        "sealed_tokens",
        ("user_id", "owner_namespace", "owner_name", "upstream", "generation"),
        _contexts_of_connection,
        "DELETE FROM connections",
        ("authorization_server", "registered_client_id"),
    ),
    _Sealed(
        "refresh_tokens",
        "sealed_successor",
        ("token_hash", "tsid"),
        lambda row: [refresh_tokens.successor_place(row["tsid"], row["token_hash"])],
        "UPDATE refresh_tokens SET sealed_successor = NULL, sealed_under = NULL",
    ),
    _Sealed(
        "transactions",
        "sealed_transaction",
        ("handle_hash", "stage"),
        lambda row: [pending_sign_ins.associated_data(row["handle_hash"], row["stage"])],
        "DELETE FROM transactions",
    ),
    _Sealed(
        "audit_keys",
        "sealed_key",
        ("name",),
        lambda row: [audit_keys.associated_data(row["name"])],
        "DELETE FROM audit_keys",
    ),
    _Sealed(
        "users",
        "sealed_account",
        ("user_id",),
        lambda row: [accounts.associated_data(row["user_id"])],
        "UPDATE users SET sealed_account = NULL, sealed_under = NULL",
    ),
)


class Progress(Value, frozen=True):
    """What a rewrap has done so far."""

    rewrapped: int = 0
    unreadable: int = 0


class KeyRotation:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self, keyring: Keyring) -> None:
        """Raises StorageOpenError where a key is missing that something is still sealed under,
        or where another key has taken its id. Writes only where a key is new.
        """
        known = await self._known_keys()
        for key_id, fingerprint in keyring.fingerprints.items():
            if key_id not in known:
                await self._database.write(
                    "INSERT INTO key_checks (key_id, fingerprint) VALUES (?, ?)"
                    " ON CONFLICT (key_id) DO NOTHING",
                    key_id,
                    fingerprint,
                )
        if not known.keys() >= keyring.fingerprints.keys():
            known = await self._known_keys()  # another process may have been quicker
        for key_id, fingerprint in keyring.fingerprints.items():
            if known[key_id] != fingerprint:
                raise StorageOpenError(
                    f"encryptionKeys: {key_id} is not the key that this database knows"
                    " under that id; put the right file back, or give the new key a new id"
                )
        for missing in sorted(await self.key_ids() - set(keyring.fingerprints)):
            raise StorageOpenError(
                f"encryptionKeys: {missing} is missing, and {await self._count(missing)} row(s)"
                " are still sealed under it; put it back behind the first one and run `rewrap`,"
                " or give them up with `forget-key` if it is lost"
            )

    async def _known_keys(self) -> dict[str, bytes]:
        """What tells the keys apart that this database has seen, by id."""
        rows = await self._database.fetch_all("SELECT key_id, fingerprint FROM key_checks")
        return {row["key_id"]: row["fingerprint"] for row in rows}

    async def key_ids(self) -> set[str]:
        """The ids of all keys that anything is sealed under, from the indexes alone."""
        return {key_id for sealed in _SEALED for key_id in await self._ids_in(sealed)}

    async def rewrap(self, keyring: Keyring) -> AsyncIterator[Progress]:
        """Seal anew what is not under the first key; yields after every batch.

        What does not open stays as it is, and is counted.
        """
        progress = Progress()
        for sealed in _SEALED:
            for key_id in await self._ids_in(sealed):
                if key_id != keyring.sealing_id:
                    async for rewrapped, unreadable in self._rewrap(keyring, sealed, key_id):
                        progress = Progress(
                            progress.rewrapped + rewrapped, progress.unreadable + unreadable
                        )
                        yield progress

    async def forget(self, key_id: str, now: int) -> int:
        """Delete what is sealed under a lost key: nobody can read it. The number of rows."""
        async with self._database.transaction() as transaction:
            gone = len(await _forget_connections(transaction, key_id, now))
            for sealed in _SEALED:
                gone += await transaction.execute(f"{sealed.forget} WHERE sealed_under = ?", key_id)
        return gone

    async def _rewrap(
        self, keyring: Keyring, sealed: _Sealed, key_id: str
    ) -> AsyncIterator[tuple[int, int]]:
        broken: set[tuple[object, ...]] = set()
        columns = ", ".join((*sealed.key, *sealed.also, sealed.column))
        while len(broken) < _MAX_UNREADABLE:
            rows = await self._database.fetch_all(
                f"SELECT {columns} FROM {sealed.table} WHERE sealed_under = ?"
                f" LIMIT {_BATCH + len(broken)}",
                key_id,
            )
            fresh = [row for row in rows if tuple(row[name] for name in sealed.key) not in broken]
            if not fresh:
                return
            rewrapped, before = 0, len(broken)
            for row in fresh:
                try:
                    rewrapped += await self._replace(keyring, sealed, row)
                except DecryptionFailed:
                    broken.add(tuple(row[name] for name in sealed.key))
            yield rewrapped, len(broken) - before

    async def _replace(self, keyring: Keyring, sealed: _Sealed, row: Row) -> int:
        old = row[sealed.column]
        new = _sealed_anew(keyring, old, sealed.contexts(row))
        at = " AND ".join(f"{name} = ?" for name in sealed.key)
        return await self._database.write(
            f"UPDATE {sealed.table} SET {sealed.column} = ?, sealed_under = ?"
            f" WHERE {at} AND {sealed.column} = ?",
            new,
            key_id_of(new),
            *(row[name] for name in sealed.key),
            old,
        )

    async def _ids_in(self, sealed: _Sealed) -> list[str]:
        """From one distinct value to the next, so that it stays quick in a table of millions."""
        key_ids: list[str] = []
        while True:
            row = await self._database.fetch_one(
                f"SELECT MIN(sealed_under) AS next FROM {sealed.table} WHERE sealed_under > ?",
                key_ids[-1] if key_ids else "",
            )
            if row is None or row["next"] is None:
                return key_ids
            key_ids.append(row["next"])

    async def _count(self, key_id: str) -> int:
        total = 0
        for sealed in _SEALED:
            row = await self._database.fetch_one(
                f"SELECT COUNT(*) AS n FROM {sealed.table} WHERE sealed_under = ?", key_id
            )
            total += int(row["n"]) if row else 0
        return total


async def _forget_connections(
    transaction: Transactional, key_id: str, now: int
) -> list[ConnectionKey]:
    rows = await transaction.fetch_all(
        "DELETE FROM connections WHERE sealed_under = ?"
        " RETURNING user_id, owner_namespace, owner_name, upstream",
        key_id,
    )
    gone = [ConnectionKey(row[0], Workload(row[1], row[2]), row[3]) for row in rows]
    await revocations.connections_ended(transaction, gone, now)
    return gone


def _sealed_anew(keyring: Keyring, old: bytes, contexts: Sequence[Sequence[str | int]]) -> bytes:
    """The value under the first key, in the place where it opens. Raises DecryptionFailed."""
    for context in contexts[:-1]:
        with suppress(DecryptionFailed):
            return keyring.seal(keyring.open(old, *context), *context)
    return keyring.seal(keyring.open(old, *contexts[-1]), *contexts[-1])
