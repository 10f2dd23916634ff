"""What a stored exchanged token costs at the internal listener, beside a plain connection's.

`python -m tests.bench.exchanged`: both by turns over one warm mTLS connection, in one process.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.support.exchanging import exchanging
from tests.support.workloads import Line, line

_ROUNDS: Final = 30
_CALLS: Final = 100
_WISHES: Final = {
    "a plain connection": {"audience": "acme"},
    "an exchanged token": {"audience": "orders"},
    "a narrowed one": {"audience": "orders", "target_audience": "orders", "scope": "orders.read"},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> None:
    taken: dict[str, list[float]] = {name: [] for name in _WISHES}
    async with exchanging(folder, lifetime=100_000) as r, line(r.world) as open_line:
        jwt = r.user.access_token
        for _ in range(_ROUNDS):
            for name, wish in _WISHES.items():
                taken[name].append(await _round(open_line, jwt, wish))
    least = statistics.median(taken["a plain connection"])
    print("| exchange of a known JWT for | us | times a plain connection's |")
    print("|---|---:|---:|")
    for name, each in taken.items():
        median = statistics.median(each)
        print(f"| {name} | {median * 1e6:.0f} | {median / least:.2f} |")


async def _round(open_line: Line, jwt: str, wish: dict[str, str]) -> float:
    """Seconds for one call: this process is the caller too, which is in every figure."""
    begun = time.process_time()
    for _ in range(_CALLS):
        answer = await open_line.exchange(jwt, **wish)
        assert answer.status == 200, answer.text
    return (time.process_time() - begun) / _CALLS


if __name__ == "__main__":
    main()
