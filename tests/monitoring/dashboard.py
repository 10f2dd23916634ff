"""The panels of the Grafana dashboard."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.monitoring.rules import COMPONENT

_INTERVAL = "$__rate_interval"


@dataclass(frozen=True)
class Query:
    expression: str
    legend: str

    def over(self, seconds: float) -> str:
        """The expression as Grafana would send it with this rate interval."""
        return self.expression.replace(_INTERVAL, f"{seconds * 1000:.0f}ms")


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    queries: tuple[Query, ...]
    x: int
    y: int
    row: str


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((COMPONENT / "dashboard.json").read_text())
    return found


def panels() -> Iterator[Panel]:
    """Every panel that shows data, in the order of the page; places are in Grafana's grid."""
    row = ""
    for panel in document()["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        place = panel["gridPos"]
        queries = tuple(Query(t["expr"], t["legendFormat"]) for t in panel["targets"])
        unit = panel["fieldConfig"]["defaults"]["unit"]
        yield Panel(panel["title"], unit, queries, place["x"], place["y"], row)
