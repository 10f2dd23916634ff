"""Which exchanges are tried again, after which pause, and how many at most."""

import os
from typing import Final

from sidecar.errors import ApiError

PAUSES: Final = (0.1, 0.3)  # seconds before the second and the third attempt, at most
_MAX_PAUSE_SECONDS: Final = 1.0
# In none of these cases an exchange took place.
_RETRIED: Final = frozenset({"unreachable", "disconnected", "unavailable"})


def random_fraction() -> float:
    """At least 0 and below 1, as `random.random`, whose module takes 160 kB."""
    return (int.from_bytes(os.urandom(7), "big") >> 3) / (1 << 53)


def pause_before_retry(refusal: ApiError, pause: float) -> float | None:
    """Seconds to wait: `pause`, or what the authserver asks for; None where no retry may be."""
    wait = max(pause, float(refusal.retry_after or 0))
    return wait if refusal.reason in _RETRIED and wait <= _MAX_PAUSE_SECONDS else None


class RetryBudget:
    """Allows a burst of retries, then one for every ten exchanges that worked.

    When the authserver is down every exchange wants to be repeated; without a budget its
    recovery would meet three times the load.
    """

    _BURST: Final = 10.0
    _EARNED: Final = 0.1

    def __init__(self) -> None:
        self._left = self._BURST

    def spend(self) -> bool:
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def earn(self) -> None:
        self._left = min(self._BURST, self._left + self._EARNED)
