"""The key of the audit trail's pseudonyms: made once, sealed, and kept through key rotations.

A pseudonym that is derived from an encryption key would change with it, and a user's events of
last month could not be told from a stranger's.
"""

import os
from collections.abc import Callable
from typing import Final

from authserver.storage.contract import Database
from authserver.storage.keyring import Keyring, key_id_of

KEY_BYTES: Final = 32
_NAME: Final = "pseudonyms"


class AuditKeys:
    def __init__(
        self, database: Database, keyring: Keyring, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._database, self._keyring, self._random = database, keyring, random

    async def key(self) -> bytes:
        """The key of this database; the first call makes it, whichever process makes that call.

        Raises StorageUnavailable, and DecryptionFailed where the row was altered.
        """
        stored = await self._stored()
        if stored is None:
            sealed = self._keyring.seal(self._random(KEY_BYTES), *associated_data(_NAME))
            await self._database.write(
                "INSERT INTO audit_keys (name, sealed_key, sealed_under) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO NOTHING",
                _NAME,
                sealed,
                key_id_of(sealed),
            )
            stored = await self._stored()
        assert stored is not None
        return self._keyring.open(stored, *associated_data(_NAME))

    async def _stored(self) -> bytes | None:
        row = await self._database.fetch_one(
            "SELECT sealed_key FROM audit_keys WHERE name = ?", _NAME
        )
        return None if row is None else row["sealed_key"]


def associated_data(name: str) -> tuple[str, ...]:
    """Where a sealed audit key belongs."""
    return ("audit_keys", "sealed_key", name)
