"""A clock that tests move by hand."""

from chassis import clock


class ManualClock:
    """Called like `chassis.clock.wall`; starts at `now`, the current second unless given."""

    def __init__(self, now: float | None = None) -> None:
        self.now = float(int(clock.wall())) if now is None else now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
