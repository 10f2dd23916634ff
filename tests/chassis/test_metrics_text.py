"""Our text is that of prometheus_client, byte for byte, and costs none of its servers."""

import subprocess
import sys

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from chassis import metrics_text
from chassis.probes import new_registry


def test_every_kind_of_metric_is_written_as_the_library_writes_it() -> None:
    registry = CollectorRegistry()
    awkward = 'a "quoted" \\ and\nbroken ü'
    Counter("plain", "Counts.", registry=registry).inc(3)
    labelled = Counter("labelled", f"Help {awkward}", ("b", "a"), registry=registry)
    labelled.labels(awkward, "1").inc()
    labelled.labels("", "2").inc(1e21)
    Gauge("level", "A level.", registry=registry).set(float("-inf"))
    Gauge("untouched", "Has labels and no sample.", ("x",), registry=registry)
    times = Histogram("times_seconds", "Times.", ("r",), registry=registry, buckets=(0.5, 1))
    times.labels("ok").observe(0.75)
    Summary("sizes", "Sizes.", registry=registry).observe(7)
    expected = generate_latest(registry)
    assert b"times_seconds_created" in expected
    assert metrics_text.render(registry) == expected
    assert metrics_text.CONTENT_TYPE == CONTENT_TYPE_LATEST


def test_a_process_is_described_as_the_library_describes_it() -> None:
    names = [line for line in metrics_text.render(new_registry()).splitlines() if line[:1] == b"#"]
    assert names == [
        line for line in generate_latest(new_registry()).splitlines() if line[:1] == b"#"
    ]
    assert len(names) >= 12


def test_a_kind_nobody_has_is_a_bug_and_not_a_wrong_line() -> None:
    registry = CollectorRegistry()
    Info("build", "A build.", registry=registry).info({"version": "1"})
    with pytest.raises(ValueError, match="type info"):
        metrics_text.render(registry)


def test_the_library_is_loaded_without_its_servers_and_works() -> None:
    program = """
import sys
from chassis import lean_prometheus
lean_prometheus.load()
lean_prometheus.load()
from prometheus_client import Counter
from chassis import metrics_text
from chassis.probes import new_registry
registry = new_registry()
Counter("counted", "Counts.", registry=registry).inc()
assert b"counted_total 1.0" in metrics_text.render(registry)
assert not {"http.server", "wsgiref", "urllib.request", "email", "platform"} & set(sys.modules)
import prometheus_client
try:
    prometheus_client.start_http_server(0)
except RuntimeError:
    from prometheus_client.exposition import generate_latest
    assert generate_latest(registry)
    print("well")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("well\n", "")
