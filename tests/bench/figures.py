"""A figure of ours beside the bare handler's, and the table they stand in."""

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.load import Load

ROUNDS: Final = 5
SECONDS: Final = 1.5

Round = Callable[[int, float], Awaitable[Load]]


@dataclass(frozen=True)
class Figure:
    """One row: medians over the rounds. `ratio` is ours / bare."""

    name: str
    unit: str
    ours: float
    bare: float

    @property
    def ratio(self) -> float:
        return self.ours / self.bare


async def alternate(
    name: str, ours: Round, bare: Round, *, connections: Sequence[int]
) -> list[Figure]:
    """Drive both in turn, after a warm-up; requests per second and latencies of each."""
    figures = []
    for count in connections:
        rounds: list[tuple[Load, Load]] = []
        for turn in range(ROUNDS + 1):
            seconds = SECONDS if turn else SECONDS / 3
            rounds.append((await ours(count, seconds), await bare(count, seconds)))
        del rounds[0]
        for unit, read in _READ.items():
            figures.append(
                Figure(
                    f"{name}, {count} connection{'s' if count > 1 else ''}",
                    unit,
                    statistics.median(read(mine) for mine, _ in rounds),
                    statistics.median(read(yardstick) for _, yardstick in rounds),
                )
            )
    return figures


_READ: Final[dict[str, Callable[[Load], float]]] = {
    "requests/s": lambda load: load.per_second,
    "p50 ms": lambda load: load.p50,
    "p99 ms": lambda load: load.p99,
}


def table(figures: Sequence[Figure]) -> str:
    """Markdown."""
    rows = ["| what | unit | ours | bare aiohttp | ours / bare |", "|---|---|---:|---:|---:|"]
    rows += [
        f"| {figure.name} | {figure.unit} | {_number(figure.ours)} | {_number(figure.bare)}"
        f" | {figure.ratio:.3g} |"
        for figure in figures
    ]
    return "\n".join(rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
