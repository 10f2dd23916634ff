"""Metric families as `prometheus_client` gives them, for counts that are kept as plain numbers.

That library is a twentieth of the sidecar's start and a thirtieth of its memory. A process with few
metrics and one thread counts in plain numbers, and says at a scrape what they mean.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol


class SampleLike(Protocol):
    """One number, and the labels that tell it from others of its family."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def value(self) -> float: ...


class FamilyLike(Protocol):
    """A metric with all its samples; the name of a counter is without `_total`."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def documentation(self) -> str: ...
    @property
    def samples(self) -> Sequence[SampleLike]: ...


class Collector(Protocol):
    """Whatever has metrics: one of ours, or a registry of `prometheus_client`."""

    def collect(self) -> Iterable[FamilyLike]: ...


class Sample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


class Family(NamedTuple):
    name: str
    type: str
    documentation: str
    samples: Sequence[Sample]


Labelled = Mapping[tuple[str, ...], float]
"""Numbers by the values of their labels, in the order of the labels' names."""


def counter(name: str, documentation: str, values: Labelled, labels: Sequence[str] = ()) -> Family:
    """`name` is without `_total`, which its samples have."""
    return Family(name, "counter", documentation, _samples(f"{name}_total", values, labels))


def gauge(name: str, documentation: str, value: float) -> Family:
    return Family(name, "gauge", documentation, [Sample(name, {}, value)])


def _samples(name: str, values: Labelled, labels: Sequence[str]) -> list[Sample]:
    return [
        Sample(name, dict(zip(labels, named, strict=True)), value)
        for named, value in values.items()
    ]


class Durations:
    """How often something took how long, in buckets with these upper bounds in seconds."""

    __slots__ = ("_bounds", "_buckets", "_seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._seconds = bounds, 0.0
        self._buckets = [0] * (len(bounds) + 1)

    def observe(self, seconds: float) -> None:
        self._buckets[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        """What a histogram called `name` has of these."""
        bounds = [*map(str, self._bounds), "+Inf"]
        counts = list(accumulate(self._buckets))
        for bound, count in zip(bounds, counts, strict=True):
            yield Sample(f"{name}_bucket", {**labels, "le": bound}, count)
        yield Sample(f"{name}_count", labels, counts[-1])
        yield Sample(f"{name}_sum", labels, self._seconds)


def histogram(
    name: str, documentation: str, label: str, durations: Mapping[str, Durations]
) -> Family:
    """`durations` by the value of the one label."""
    return Family(
        name,
        "histogram",
        documentation,
        [
            sample
            for value, each in durations.items()
            for sample in each.samples(name, {label: value})
        ],
    )


class Registry:
    """The metrics of several collectors, one after the other."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[FamilyLike]:
        for collector in self._collectors:
            yield from collector.collect()
