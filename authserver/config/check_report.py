"""The outcome of `--check` as JSON, for programs: every fault with its path.

A kubelet keeps 4096 bytes of what a container says at its end, so a report has a bound: faults that
do not fit are counted.
"""

import json
from collections.abc import Sequence
from typing import Final

from chassis.process import ConfigProblem

MAX_BYTES: Final = 4000
_MAX_PROBLEM: Final = 500


def report(faults: Sequence[ConfigProblem], max_bytes: int = MAX_BYTES) -> str:
    """`{"faults": [{"path", "problem"}, …], "more": how many were left out}` in ASCII."""
    members = [{"path": one.path[:200], "problem": one.problem[:_MAX_PROBLEM]} for one in faults]
    for count in range(len(members), -1, -1):
        text = json.dumps({"faults": members[:count], "more": len(members) - count})
        if len(text) <= max_bytes:
            return text
    raise ValueError("no report fits into so few bytes")
