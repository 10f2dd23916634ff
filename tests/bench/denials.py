"""Do the denials that read alike also take alike long? 2000 of each, in random order.

Beside each median stands how often a denial takes longer than one for an unknown session: 50 % is
what a coin would say, and what unknown sessions say of each other tells how far noise reaches.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from demo.layout import HOST
from tests.bench.figures import Figure
from tests.bench.minting import Minter
from tests.bench.open_loop import answer, opened
from tests.bench.release import exchange_call
from tests.bench.world import World, running, sign_in
from tests.support.forged_tokens import claims_of

RUNS: Final = 2000
_UNKNOWN: Final = "an unknown session"
_UNKNOWN_TOO: Final = "an unknown session again"


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as world:
            taken = await _timed(world, await _denied(world))
    reference = taken[_UNKNOWN]
    noise = _longer(taken[_UNKNOWN_TOO], reference)
    figures = []
    for name, times in taken.items():
        if name == _UNKNOWN:
            continue
        row = f"denial: {name}, beside {_UNKNOWN}"
        figures.append(
            Figure(row, "p50 us", statistics.median(times), statistics.median(reference))
        )
        figures.append(
            Figure(f"{row}, takes longer", "% of runs", _longer(times, reference), noise)
        )
    return figures


async def _denied(world: World) -> dict[str, str]:
    """A JWT for each reason, all with the right signature but one."""
    layout, own = world.layout, world.server
    mint = Minter(world.jwt, layout.signing_key)
    bobs = claims_of(await sign_in(layout, own, "bob"))
    other = claims_of(await sign_in(layout, own))
    return {
        _UNKNOWN: mint(tsid="x" * 43),
        _UNKNOWN_TOO: mint(tsid="y" * 43),
        "another user's session": mint(tsid=bobs["tsid"]),
        "another client's session": mint(tsid=other["tsid"]),
        "another server's resource": await sign_in(layout, layout.servers[1]),
        "an unknown resource": mint(aud="https://unknown.example/mcp"),
        "a bad signature": world.jwt[:-8] + "A" * 8,
    }


async def _timed(world: World, jwts: dict[str, str]) -> dict[str, list[float]]:
    """Microseconds of every run, over one connection."""
    port = world.layout.internal_port
    calls = {name: exchange_call(port, jwt) for name, jwt in jwts.items()}
    [line] = await opened(HOST, port, [world.workload_tls()], 1)
    taken: dict[str, list[float]] = {name: [] for name in jwts}
    order = [*jwts] * (RUNS + 20)
    random.shuffle(order)
    for name in order:
        begun = time.perf_counter()
        if await answer(line, calls[name]) or not line.open:
            raise ValueError(f"{name} was not denied")
        taken[name].append((time.perf_counter() - begun) * 1e6)
    line.close()
    return {name: times[-RUNS:] for name, times in taken.items()}


def _longer(times: Sequence[float], reference: Sequence[float]) -> float:
    """How often a draw of `times` is longer than one of `reference`, in per cent (Mann-Whitney)."""
    ranked = sorted([(time, True) for time in times] + [(time, False) for time in reference])
    below, wins = 0, 0
    for _, ours in ranked:
        if ours:
            wins += below
        else:
            below += 1
    return 100 * wins / (len(times) * len(reference))
