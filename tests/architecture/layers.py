"""Draws the rooms of the project and their imports as docs/explanation/layers.svg.

`python -m tests.architecture.layers` writes the picture; a test compares it with the imports.
A room is a package of the authserver, or another package as a whole. A room's floor is the length
of the longest chain of imports below it. Arrows that a longer path replaces are left out.
"""

from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import grimp

ROOT: Final = Path(__file__).resolve().parents[2]
PICTURE: Final = ROOT / "docs/explanation/layers.svg"
PACKAGES: Final = ("tokenward", "authserver", "webhook", "sidecar", "chassis", "demo")

_BOX_WIDTH, _BOX_HEIGHT, _GAP, _FLOOR_HEIGHT, _MARGIN = 168, 30, 18, 84, 24


def room_of(module: str) -> str:
    """The room of a module: `authserver.public.pages` is in `authserver.public`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "authserver" and len(parts) > 1 else parts[0]


Rooms = dict[str, set[str]]


def rooms() -> Rooms:
    """Each room with the rooms that it imports."""
    imports = grimp.build_graph(*PACKAGES, cache_dir=None)
    found: Rooms = {}
    for module in sorted(imports.modules - {"authserver"}):
        below = {room_of(other) for other in imports.find_modules_directly_imported_by(module)}
        found.setdefault(room_of(module), set()).update(below)
    return {room: below - {room, "authserver"} for room, below in found.items()}


def floors(graph: Rooms) -> list[list[str]]:
    """The rooms by floor, lowest first. Raises graphlib.CycleError if imports form a circle."""
    level: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        level[room] = 1 + max((level[below] for below in graph[room]), default=-1)
    return [
        sorted(room for room in level if level[room] == floor)
        for floor in range(max(level.values()) + 1)
    ]


def direct(graph: Rooms) -> list[tuple[str, str]]:
    """The arrows that no longer path replaces."""
    reach: Rooms = {}
    for room in TopologicalSorter(graph).static_order():
        reach[room] = graph[room].union(*(reach[below] for below in graph[room]))
    return sorted(
        (room, below)
        for room in graph
        for below in graph[room]
        if not any(below in reach[other] for other in graph[room])
    )


def drawn() -> str:
    """The picture as SVG."""
    graph = rooms()
    storeys = floors(graph)
    width = max(len(floor) for floor in storeys) * (_BOX_WIDTH + _GAP) + 2 * _MARGIN
    height = len(storeys) * _FLOOR_HEIGHT + 2 * _MARGIN
    places = _places(storeys, width)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="sans-serif" font-size="13">',
        "<title>Rooms of the project by floor; every arrow points down</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_arrows(direct(graph), places),
        *_boxes(places),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _places(storeys: list[list[str]], width: int) -> dict[str, tuple[int, int]]:
    places = {}
    for number, floor in enumerate(reversed(storeys)):
        used = len(floor) * _BOX_WIDTH + (len(floor) - 1) * _GAP
        left = (width - used) // 2
        for place, room in enumerate(floor):
            places[room] = (left + place * (_BOX_WIDTH + _GAP), _MARGIN + number * _FLOOR_HEIGHT)
    return places


def _arrows(arrows: Iterable[tuple[str, str]], places: dict[str, tuple[int, int]]) -> Iterable[str]:
    for above, below in arrows:
        (left, top), (end, bottom) = places[above], places[below]
        half = _BOX_WIDTH // 2
        yield (
            f'<line x1="{left + half}" y1="{top + _BOX_HEIGHT}" x2="{end + half}" y2="{bottom}" '
            'stroke="#8a94a6" stroke-width="1"/>'
        )


def _boxes(places: dict[str, tuple[int, int]]) -> Iterable[str]:
    for room, (left, top) in sorted(places.items()):
        fill = "#e8f0fe" if room.startswith("authserver") else "#e6f4ea"
        yield (
            f'<rect x="{left}" y="{top}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="4" '
            f'fill="{fill}" stroke="#5f6b7c"/>'
        )
        yield (
            f'<text x="{left + _BOX_WIDTH // 2}" y="{top + 20}" text-anchor="middle" '
            f'fill="#1b2430">{room.removeprefix("authserver.")}</text>'
        )


if __name__ == "__main__":
    PICTURE.write_text(drawn(), "utf-8")
