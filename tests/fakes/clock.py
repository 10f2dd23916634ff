"""A clock that tests move by hand."""

from chassis import clock


class ManualClock:
    """Starts now, stands still, and is called like `chassis.clock.wall`."""

    def __init__(self) -> None:
        self._now = float(int(clock.wall()))

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
