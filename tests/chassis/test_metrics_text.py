"""Our text is that of prometheus_client, byte for byte, and costs none of its servers."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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

from chassis import clock, metrics_text
from chassis.metric_families import (
    Collector,
    Durations,
    Family,
    Registry,
    SampleLike,
    counter,
    gauge,
    histogram,
)
from chassis.probes import new_registry
from chassis.process_metrics import ProcessMetrics


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


def test_a_process_without_the_library_describes_itself_in_the_same_words() -> None:
    ours, library = (
        [line for line in text.decode().splitlines() if not line.startswith("process_")]
        for text in (metrics_text.render(ProcessMetrics()), generate_latest(new_registry()))
    )
    assert sorted(ours) == sorted(library)
    numbers = {sample.name: sample.value for sample in samples_of(ProcessMetrics())}
    assert numbers["process_max_fds"] >= numbers["process_open_fds"] > 3
    assert abs(numbers["process_start_time_seconds"] - clock.wall()) < 3600
    reference = {sample.name: sample.value for sample in samples_of(new_registry())}
    for name in ("process_virtual_memory_bytes", "process_cpu_seconds_total"):
        assert numbers[name] == pytest.approx(reference[name], rel=0.05)


def samples_of(collector: Collector) -> Iterator[SampleLike]:
    return (sample for family in collector.collect() for sample in family.samples)


def test_a_process_says_nothing_of_itself_where_there_is_no_proc(tmp_path: Path) -> None:
    assert metrics_text.render(ProcessMetrics(tmp_path)) == b""
    (tmp_path / "stat").write_text("cpu 1 2 3\n")
    assert metrics_text.render(ProcessMetrics(tmp_path)) == b""


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1000\n")
    (tmp_path / "self/fd").mkdir(parents=True)
    numbers = " ".join(map(str, range(3, 53)))
    (tmp_path / "self/stat").write_text(f"1 (a) b (c) 7) {numbers}\n")
    found = {sample.name: sample.value for sample in samples_of(ProcessMetrics(tmp_path))}
    assert found["process_virtual_memory_bytes"] == 23  # the number of the field, as proc(5) counts
    assert found["process_cpu_seconds_total"] == (14 + 15) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    "value", [0, -0.0, 1, 0.1, 1e-7, 999_999.5, 1e6, 1_234_567.25, 1.5e9, 1e16, math.nan, math.inf]
)
def test_a_number_is_written_as_the_library_writes_it(value: float) -> None:
    registry = CollectorRegistry()
    Gauge("g", "A level.", registry=registry).set(value)
    assert metrics_text.render(registry) == generate_latest(registry)


def test_plain_numbers_are_written_as_the_library_writes_its_own() -> None:
    registry, bounds = CollectorRegistry(), (0.0005, 1.0, 5.0)
    times = Histogram("t_seconds", "Times.", ("r",), registry=registry, buckets=bounds)
    counted = Counter("c", "Counts.", ("a", "b"), registry=registry)
    ours = {"ok": Durations(bounds), "never": Durations(bounds)}
    for seconds in (0.0005, 0.2, 1.0, 7.5):
        times.labels("ok").observe(seconds)
        ours["ok"].observe(seconds)
    times.labels("never")
    counted.labels("x", "y").inc(2e6)
    Gauge("g", "A level.", registry=registry).set(3)

    class Counted:
        def collect(self) -> Iterator[Family]:
            yield histogram("t_seconds", "Times.", "r", ours)
            yield counter("c", "Counts.", {("x", "y"): 2_000_000}, ("a", "b"))
            yield gauge("g", "A level.", 3)

    lines = generate_latest(registry).decode().splitlines(keepends=True)
    expected = "".join(line for line in lines if "_created" not in line)
    assert metrics_text.render(Registry(Counted())).decode() == expected


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
