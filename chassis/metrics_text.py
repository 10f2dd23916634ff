"""Metrics in Prometheus's text format, as `prometheus_client.generate_latest` writes them.

That function lives beside HTTP servers and push clients, and the sidecar does without the library.
Counters, gauges, histograms and summaries are all we have.
"""

import math
from collections.abc import Iterator
from typing import Final

from chassis.metric_families import Collector, FamilyLike, SampleLike

CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"

_TYPES: Final = frozenset({"counter", "gauge", "histogram", "summary"})
_CREATED: Final = "_created"  # of OpenMetrics; here a gauge of its own


def render(registry: Collector) -> bytes:
    """Every metric of `registry`. Raises ValueError for a type that nothing here has."""
    return "".join(line for metric in registry.collect() for line in _lines(metric)).encode()


def _lines(metric: FamilyLike) -> Iterator[str]:
    if metric.type not in _TYPES:
        raise ValueError(f"no metric of ours is of type {metric.type}")
    created = metric.name + _CREATED
    total = metric.name + ("_total" if metric.type == "counter" else "")
    yield from _head(total, metric.type, metric.documentation)
    yield from (_line(sample) for sample in metric.samples if sample.name != created)
    later = [_line(sample) for sample in metric.samples if sample.name == created]
    if later:
        yield from _head(created, "gauge", metric.documentation)
        yield from later


def _head(name: str, kind: str, documentation: str) -> Iterator[str]:
    text = documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _line(sample: SampleLike) -> str:
    labels = ",".join(f'{name}="{_escape(text)}"' for name, text in sorted(sample.labels.items()))
    shown = f"{{{labels}}}" if labels else ""
    return f"{sample.name}{shown} {_number(sample.value)}\n"


def _number(value: float) -> str:
    """As Go writes it, which takes exponents sooner than Python does."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(float(value))
    point = text.find(".")
    if value > 0 and point > 6:
        digits = f"{text[0]}.{text[1:point]}{text[point + 1 :]}".rstrip("0.")
        return f"{digits}e+{point - 1:02d}"
    return text


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
