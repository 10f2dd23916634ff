"""The corpus: requests by their bytes, and what they are answered."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Shape(NamedTuple):
    """`nginx` and `aiohttp`: why that server refuses what we serve, where it does."""

    name: str
    sent: bytes
    statuses: list[int]
    head: bool
    nginx: str | None
    aiohttp: str | None

    @property
    def refused(self) -> bool:
        return any(status >= 400 for status in self.statuses)


def _shape(entry: dict[str, Any]) -> Shape:
    text, many = entry.get("repeat", ["", 0])
    sent = entry["send"].replace("<repeated>", text * many).encode("latin-1")
    return Shape(
        entry["name"], sent, entry["statuses"], entry.get("head", False),
        entry.get("nginx"), entry.get("aiohttp"),
    )  # fmt: skip


_TEXT = (Path(__file__).parent / "corpus.yaml").read_text("utf-8")
SHAPES = [_shape(entry) for entry in yaml.load(_TEXT, yaml.CSafeLoader)]
NAMES = [shape.name for shape in SHAPES]
