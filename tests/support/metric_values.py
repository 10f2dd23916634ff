"""Reads a metric of a process that counts in plain numbers."""

from chassis.metric_families import Collector


def value_of(collector: Collector, name: str, **labels: str) -> float:
    """The one sample of that name with exactly these labels."""
    samples = (sample for family in collector.collect() for sample in family.samples)
    (value,) = (one.value for one in samples if (one.name, one.labels) == (name, labels))
    return value
