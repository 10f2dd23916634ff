"""Metrics in Prometheus's text format, as `prometheus_client.generate_latest` writes them.

That function lives beside HTTP servers and push clients, whose imports cost the sidecar an eighth
of its memory. Counters, gauges, histograms and summaries are all we have.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"

_TYPES: Final = frozenset({"counter", "gauge", "histogram", "summary"})
_CREATED: Final = "_created"  # of OpenMetrics; here a gauge of its own


def render(registry: Collector) -> bytes:
    """Every metric of `registry`. Raises ValueError for a type that nothing here has."""
    return "".join(line for metric in registry.collect() for line in _lines(metric)).encode()


def _lines(metric: Metric) -> Iterator[str]:
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


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escape(text)}"' for name, text in sorted(sample.labels.items()))
    shown = f"{{{labels}}}" if labels else ""
    number: str = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
    return f"{sample.name}{shown} {number}\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
