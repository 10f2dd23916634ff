"""The one place that reads the wall clock; everything else takes `now` as a parameter."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


# Seconds since the Unix epoch, as certificates and token claims count them.
wall: Clock = time.time  # noqa: TID251 - see the module's docstring
