"""The sidecar's metrics: every label value comes from a closed set, and exists from the start."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from chassis.probes import DURATION_BUCKETS
from sidecar.errors import RESULTS
from sidecar.unverified_jwt import PROBLEMS

CACHE_RESULTS: Final = ("hit", "miss", "coalesced", "negative")


class Metrics:
    """What happened, counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = _Calls()
        registry.register(self._calls)
        exchanges = Histogram(
            "tokenward_sidecar_exchange_duration_seconds",
            "Time of an exchange with the authserver, retries included.",
            ("result",),
            registry=registry,
            buckets=DURATION_BUCKETS,
        )
        self._exchange_seconds = {result: exchanges.labels(result) for result in sorted(RESULTS)}
        self._entries = Gauge(
            "tokenward_sidecar_cache_entries", "Tokens held in memory.", registry=registry
        )
        self._expiry = Gauge(
            "tokenward_credential_expiry_timestamp_seconds",
            "When the certificate in use expires; 0 while there is none.",
            registry=registry,
        )
        reloads = Counter(
            "tokenward_credential_reloads",
            "Changed credential files, by whether they could be used.",
            ("result",),
            registry=registry,
        )
        self._expired_cas = Gauge(
            "tokenward_expired_cas",
            "Expired CAs in the bundle that the authserver is checked against; they are left out.",
            registry=registry,
        )
        refused = Counter(
            "tokenward_sidecar_refused_jwts",
            "JWTs that cannot be good for this workload and were refused without an exchange.",
            ("reason",),
            registry=registry,
        )
        self._refused_jwts = {reason: refused.labels(reason) for reason in PROBLEMS}
        self._reloads = {True: reloads.labels("ok"), False: reloads.labels("failed")}

    def answered(self, result: str, seconds: float) -> None:
        self._calls.answered(result, seconds)

    def cache(self, result: str) -> None:
        self._calls.cache[result] += 1

    def refused_jwt(self, reason: str) -> None:
        self._refused_jwts[reason].inc()

    def exchanged(self, result: str, seconds: float) -> None:
        self._exchange_seconds[result].observe(seconds)

    def credential_reloaded(self, succeeded: bool) -> None:
        self._reloads[succeeded].inc()

    def expired_cas(self, count: int) -> None:
        self._expired_cas.set(count)

    def credential_expires(self, at: float) -> None:
        self._expiry.set(at)

    def count_entries(self, entries: Callable[[], int]) -> None:
        self._entries.set_function(entries)


class _Calls(Collector):
    """Three metrics of every call, as plain numbers: the library's locks are for threads.

    Counting a call with them would cost a tenth of the call.
    """

    def __init__(self) -> None:
        self.cache = dict.fromkeys(CACHE_RESULTS, 0)
        self._results = dict.fromkeys(sorted(RESULTS), 0)
        self._buckets = [0] * (len(DURATION_BUCKETS) + 1)
        self._seconds = 0.0

    def answered(self, result: str, seconds: float) -> None:
        self._results[result] += 1
        self._buckets[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterator[Metric]:
        yield _counter("tokenward_sidecar_requests", "Calls of the local API.", self._results)
        yield _counter("tokenward_sidecar_cache", "How calls met the memory.", self.cache)
        bounds = [*map(str, DURATION_BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "tokenward_sidecar_request_duration_seconds",
            "Time to answer a call of the local API.",
            buckets=list(zip(bounds, accumulate(self._buckets), strict=True)),
            sum_value=self._seconds,
        )


def _counter(name: str, text: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=("result",))
    for result, count in counts.items():
        family.add_metric((result,), count)
    return family
