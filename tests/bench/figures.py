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
    """One row: medians over the rounds. `bare` is None where there is nothing to compare with."""

    name: str
    unit: str
    ours: float
    bare: float | None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.bare if self.bare else None


async def alternate(
    name: str,
    ours: Round,
    bare: Round,
    *,
    connections: Sequence[int],
    units: Sequence[str] = ("requests/s", "p50 ms", "p99 ms"),
) -> list[Figure]:
    """Drive both in turn, after a warm-up; requests per second and latencies of each."""
    figures = []
    for count in connections:
        rounds: list[tuple[Load, Load]] = []
        for turn in range(ROUNDS + 1):
            seconds = SECONDS if turn else SECONDS / 3
            rounds.append((await ours(count, seconds), await bare(count, seconds)))
        plural = "s" if count > 1 else ""
        figures += medians(f"{name}, {count:,} connection{plural}", rounds[1:], units)
    return figures


def medians(name: str, rounds: Sequence[tuple[Load, Load]], units: Sequence[str]) -> list[Figure]:
    """A row for each unit; the rounds are pairs of ours and the bare handler's."""
    return [
        Figure(
            name,
            unit,
            statistics.median(_READ[unit](mine) for mine, _ in rounds),
            statistics.median(_READ[unit](yardstick) for _, yardstick in rounds),
        )
        for unit in units
    ]


_READ: Final[dict[str, Callable[[Load], float]]] = {
    "requests/s": lambda load: load.per_second,
    "p50 ms": lambda load: load.p50,
    "p99 ms": lambda load: load.p99,
    "CPU us/request": lambda load: load.cpu,
}


def table(figures: Sequence[Figure]) -> str:
    """Markdown."""
    rows = ["| what | unit | ours | bare aiohttp | ours / bare |", "|---|---|---:|---:|---:|"]
    rows += [
        f"| {figure.name} | {figure.unit} | {_number(figure.ours)} | {_number(figure.bare)}"
        f" | {'-' if figure.ratio is None else f'{figure.ratio:.3g}'} |"
        for figure in figures
    ]
    return "\n".join(rows)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
