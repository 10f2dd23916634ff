"""Draws the dashboard as SVG from the data of a run, panel by panel, without a browser."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from tests.monitoring.dashboard import Panel, Query, panels
from tests.monitoring.prometheus import Prometheus, Sample

_WIDTH, _HEIGHT = 320, 168  # of a panel
_GAP, _TOP, _ROW = 8, 8, 26
_LEFT, _HEAD, _FOOT = 44, 24, 16  # room for numbers, title and legend inside a panel
_POINTS: Final = 60
_MAX_SERIES: Final = 8
# Told apart by colour and, in the legend, by order; readable on white and on black.
_COLOURS: Final = (
    "#3274d9", "#e0752d", "#5a9e3f", "#a352cc", "#c4162a", "#0f8f8f", "#b8860b", "#7a7a7a",
)  # fmt: skip


async def draw(prometheus: Prometheus, start: float, end: float, rate_seconds: float) -> str:
    """The whole dashboard over a time of a run, as a document."""
    parts: list[str] = []
    y, row, column = _TOP, "", 0
    for panel in panels():
        if panel.row != row:
            y += (_HEIGHT + _GAP) if column else 0
            row, column = panel.row, 0
            parts.append(f'<text class="row" x="{_GAP}" y="{y + 17}">{escape(row)}</text>')
            y += _ROW
        lines = await _lines(prometheus, panel, start, end, rate_seconds)
        x = _GAP + column * (_WIDTH + _GAP)
        parts.append(
            f'<g transform="translate({x} {y})">{"".join(_panel(panel, lines, start, end))}</g>'
        )
        column += 1
        if column == 3:
            y, column = y + _HEIGHT + _GAP, 0
    y += (_HEIGHT + _GAP) if column else 0
    return _document("\n".join(parts), 3 * _WIDTH + 4 * _GAP, y)


Line = tuple[str, Sample]


async def _lines(
    prometheus: Prometheus, panel: Panel, start: float, end: float, rate_seconds: float
) -> list[Line]:
    step = (end - start) / _POINTS
    found = []
    for query in panel.queries:
        for sample in await prometheus.range(query.over(rate_seconds), start, end, step):
            found.append((_legend(query, sample), sample))
    found.sort(key=lambda line: -max((v for _, v in line[1].values if v == v), default=0))
    return found[:_MAX_SERIES]


def _legend(query: Query, sample: Sample) -> str:
    text = query.legend
    for name, value in sample.labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def _panel(panel: Panel, lines: Sequence[Line], start: float, end: float) -> Iterator[str]:
    top = max((v for _, s in lines for _, v in s.values if v == v), default=1.0) * 1.1 or 1.0
    bottom, height = _HEIGHT - _FOOT - 18, _HEIGHT - _FOOT - 18 - _HEAD
    yield f'<rect class="panel" width="{_WIDTH}" height="{_HEIGHT}" rx="3"/>'
    yield f'<text class="title" x="8" y="16">{escape(panel.title)}</text>'
    for part in (0, 0.5, 1):
        at = bottom - part * height
        yield f'<path class="grid" d="M{_LEFT} {at:.0f}H{_WIDTH - 8}"/>'
        text = _number(top * part, panel.unit)
        yield f'<text class="unit" x="{_LEFT - 4}" y="{at + 3:.0f}">{text}</text>'
    for number, (_, sample) in enumerate(lines):
        path = _path(sample, start, end, top, bottom, height)
        yield f'<path fill="none" stroke="{_COLOURS[number]}" stroke-width="1.4" d="{path}"/>'
    yield from _legends([name for name, _ in lines])


def _path(
    sample: Sample, start: float, end: float, top: float, bottom: float, height: float
) -> str:
    wide = (_WIDTH - 8 - _LEFT) / (end - start)
    points = [
        f"{_LEFT + (t - start) * wide:.0f} {bottom - v / top * height:.0f}"
        for t, v in sample.values
        if v == v  # NaN where nothing was counted
    ]
    return "M" + "L".join(points) if points else ""


def _legends(names: Sequence[str]) -> Iterator[str]:
    """Two lines of names; what has no room is left out."""
    x, y = 8.0, _HEIGHT - 18
    for number, name in enumerate(names):
        width = 14 + 5.2 * len(name)
        if x + width > _WIDTH:
            x, y = 8.0, y + 13
        if y > _HEIGHT:
            return
        yield f'<path stroke="{_COLOURS[number]}" stroke-width="3" d="M{x:.0f} {y - 3}h8"/>'
        yield f'<text class="legend" x="{x + 11:.0f}" y="{y}">{escape(name)}</text>'
        x += width + 8


def _number(value: float, unit: str) -> str:
    if value == 0:
        return "0"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "bytes":
        for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value >= size:
                return f"{value / size:.3g} {name}"
    endings = {"ops": "/s", "percentunit": "", "d": " d"}
    return f"{value:.3g}{endings.get(unit, '')}"


def _document(body: str, width: int, height: int) -> str:
    style = (
        "text{font:11px sans-serif;fill:#222}.row{font-weight:bold;font-size:13px}"
        ".title{font-weight:bold}.unit{font-size:9px;text-anchor:end;fill:#555}"
        ".legend{font-size:9.5px}.panel{fill:#fff;stroke:#ccc}.grid{stroke:#e4e4e4}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img">\n'
        "<title>The Tokenward dashboard, drawn from data of the demo under load</title>\n"
        f"<style>{style}</style>\n"
        f'<rect width="{width}" height="{height}" fill="#f4f5f5"/>\n{body}\n</svg>\n'
    )
