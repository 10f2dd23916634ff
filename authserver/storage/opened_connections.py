"""Connections that were opened lately, so that a row that did not change is not unsealed again.

The row itself is read each time, so what ended or was replaced is never given out. A remembered
connection is used only where every column of the row is the same, down to the sealed bytes.
"""

from collections.abc import Sequence
from typing import Any, Final

from authserver.storage.connection_rows import SealedConnections, at
from authserver.storage.keyring import Keyring
from authserver.storage.records import Connection, ConnectionKey

MOST: Final = 10_000
UNUSED_SECONDS: Final = 300

_Entries = dict[tuple[str, ...], tuple[Sequence[Any], Connection]]


class OpenedConnections:
    """Opens rows, and remembers at most `MOST` of them, under the keys in force.

    What nobody asked for in `UNUSED_SECONDS` is dropped within as long again, by the next call.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._sealed, self._keyring = SealedConnections(keyring), keyring
        self._recent: _Entries = {}
        self._older: _Entries = {}
        self._since = 0.0
        self._keys_epoch = keyring.epoch

    def open_at(self, key: ConnectionKey, values: Sequence[Any], now: float) -> Connection:
        """As `SealedConnections.open_at`. Raises DecryptionFailed."""
        self._age(now)
        place = at(key)
        entry = self._recent.get(place) or self._older.get(place)
        if entry is None or entry[0] != values:
            entry = (values, self._sealed.open_at(key, values))
        self._recent[place] = entry
        return entry[1]

    def forget(self, key: ConnectionKey) -> None:
        """Drop what ended."""
        self._recent.pop(at(key), None)
        self._older.pop(at(key), None)

    def _age(self, now: float) -> None:
        elapsed = now - self._since
        if self._keys_epoch != self._keyring.epoch or not 0 <= elapsed < 2 * UNUSED_SECONDS:
            self._keys_epoch, self._since = self._keyring.epoch, now
            self._recent, self._older = {}, {}
        # Two halves, so that a drop needs no search: what was used lately is in the first.
        elif len(self._recent) >= MOST // 2 or elapsed >= UNUSED_SECONDS:
            self._recent, self._older = {}, self._recent
            self._since = now
