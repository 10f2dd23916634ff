"""What time it is, as far as anybody can say: this node's clock, and the authserver's.

A node's clock may be hours off, and a sidecar goes on then. So a JWT counts as over only where no
clock that can be believed says otherwise.
"""

from collections.abc import Callable

from chassis.clock import Clock
from chassis.utc import http_date


class Clocks:
    """`now` is monotonic, `wall` is Unix time, both in seconds.

    `wall_is_credible` says whether the own certificate is valid by the wall clock: where it is
    not, the clock is wrong, or nothing works anyway.
    """

    def __init__(self, now: Clock, wall: Clock, wall_is_credible: Callable[[], bool]) -> None:
        self._now, self._wall, self._wall_is_credible = now, wall, wall_is_credible
        self._date, self._heard_at = "", 0.0

    def heard(self, date: str) -> None:
        """The authserver sent this `Date` header (RFC 9110 section 6.6.1) just now."""
        self._date, self._heard_at = date, self._now()

    def times(self) -> tuple[float, ...]:
        """What each clock says, in Unix time; empty where none can be believed."""
        wall = (self._wall(),) if self._wall_is_credible() else ()
        return (*wall, *self._authserver_time())

    def _authserver_time(self) -> tuple[float, ...]:
        try:
            sent = http_date(self._date)
        except ValueError:
            return ()
        return (sent + self._now() - self._heard_at,)
