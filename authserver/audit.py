"""The audit trail of the internal listener: one event per release and per denial.

Identifiers of sessions and tokens appear as keyed hashes only, so that a log shows what belongs
together and gives nobody a handle. The level that the process logs at does not touch them.
"""

import contextlib
import hmac
import logging
from functools import lru_cache
from typing import Final

from chassis.logs import Log, LogWriteFailed

_log = Log("audit")

_MAX_KNOWN: Final = 10_000


class Audit:
    def __init__(self, log_secret: bytes) -> None:
        self._log_secret = log_secret
        # The same session comes back every minute or so, from each of its sidecars.
        self.hashed = lru_cache(_MAX_KNOWN)(self._hashed)

    def _hashed(self, identifier: str) -> str:
        """A keyed hash of an identifier: 96 bits of HMAC-SHA-256 in hexadecimal."""
        return hmac.digest(self._log_secret, identifier.encode(), "sha256")[:12].hex()

    def release(self, **facts: object) -> None:
        """Raises LogWriteFailed if the event was not written: then release nothing."""
        _log.write_or_raise(logging.INFO, "audit", decision="release", **facts)

    def denial(self, reason: str, **facts: object) -> None:
        """A denial stands whether or not it could be written."""
        with contextlib.suppress(LogWriteFailed):
            _log.write_or_raise(logging.WARNING, "audit", decision="deny", reason=reason, **facts)
