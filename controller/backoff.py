"""How long to wait after a failure: longer each time, and not all at the same moment."""

from collections.abc import Callable
from dataclasses import dataclass

Random = Callable[[], float]
"""A number from 0 to below 1."""


@dataclass(frozen=True)
class Backoff:
    """Exponential from `first` to `longest` seconds, each wait between half of it and all of it."""

    first: float
    longest: float

    def seconds(self, failures: int, random: Random) -> float:
        """The wait after so many failures in a row, at least one."""
        whole = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return whole * (0.5 + random() / 2)
