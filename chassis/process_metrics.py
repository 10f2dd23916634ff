"""A process's memory, CPU and file descriptors, under the names of Prometheus's client libraries.

https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chassis.metric_families import Family, counter, gauge

_PROC: Final = Path("/proc")


class ProcessMetrics:
    """This process, as `/proc` (proc(5)) describes it at each scrape; nothing where that is not."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc

    def collect(self) -> Iterator[Family]:
        try:
            booted = self._boot_time()
            # The name is in parentheses, and may itself contain blanks and parentheses.
            fields = (self._proc / "self/stat").read_bytes().rpartition(b")")[2].split()
            opened = len(os.listdir(self._proc / "self/fd"))
        except (OSError, ValueError):
            return
        ticks = os.sysconf("SC_CLK_TCK")
        cpu = (int(fields[11]) + int(fields[12])) / ticks
        yield gauge(
            "process_virtual_memory_bytes", "Virtual memory size in bytes.", float(fields[20])
        )
        yield gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            float(fields[21]) * resource.getpagesize(),
        )
        yield gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            booted + int(fields[19]) / ticks,
        )
        yield counter(
            "process_cpu_seconds", "Total user and system CPU time spent in seconds.", {(): cpu}
        )
        yield gauge("process_open_fds", "Number of open file descriptors.", opened)
        yield gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )

    def _boot_time(self) -> float:
        """Seconds since the Unix epoch. Raises ValueError where the system does not say."""
        for line in (self._proc / "stat").read_text("ascii").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
        raise ValueError("no btime")
