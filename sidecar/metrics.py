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
DOORS: Final = ("hand_out", "attach", "gateway")
ANSWERS_WITH_TOKEN: Final = ("refused", "cut_off")
POLL_RESULTS: Final = ("ok", "unsupported", "failed")


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
        with_token = Counter(
            "tokenward_sidecar_token_in_response",
            "Answers of APIs that held the attached token, by what became of them.",
            ("answer",),
            registry=registry,
        )
        self._with_token = {answer: with_token.labels(answer) for answer in ANSWERS_WITH_TOKEN}
        self._reloads = {True: reloads.labels("ok"), False: reloads.labels("failed")}

        polls = Counter(
            "tokenward_sidecar_revocation_polls",
            "Polls of the revocation feed, by what they came to.",
            ("result",),
            registry=registry,
        )
        self._polls = {result: polls.labels(result) for result in POLL_RESULTS}
        self._feed = Gauge(
            "tokenward_sidecar_revocation_feed_up",
            "Whether the last poll of the revocation feed was answered.",
            registry=registry,
        )
        self._dropped = Counter(
            "tokenward_sidecar_revocation_drops",
            "Tokens dropped from memory because their session or connection ended.",
            registry=registry,
        )

    def answered(self, result: str, seconds: float, door: str = "hand_out") -> None:
        """A call of a door; `seconds` is how long it took until the answer's head was there."""
        self._calls.doors[door].answered(result, seconds)

    def token_in_response(self, answer: str) -> None:
        self._with_token[answer].inc()

    def revocation_poll(self, result: str) -> None:
        self._polls[result].inc()
        self._feed.set(result == "ok")

    def revocations_dropped(self, count: int) -> None:
        self._dropped.inc(count)

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


class _Door:
    """Calls of one door, as plain numbers."""

    def __init__(self) -> None:
        self.results = dict.fromkeys(sorted(RESULTS), 0)
        self.buckets = [0] * (len(DURATION_BUCKETS) + 1)
        self.seconds = 0.0

    def answered(self, result: str, seconds: float) -> None:
        self.results[result] += 1
        self.buckets[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.seconds += seconds


class _Calls(Collector):
    """Three metrics of every call, as plain numbers: the library's locks are for threads.

    Counting a call with them would cost a tenth of the call.
    """

    def __init__(self) -> None:
        self.cache = dict.fromkeys(CACHE_RESULTS, 0)
        self.doors = {door: _Door() for door in DOORS}

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "tokenward_sidecar_requests", "Calls of the doors.", labels=("door", "result")
        )
        for name, door in self.doors.items():
            for result, count in door.results.items():
                requests.add_metric((name, result), count)
        yield requests
        cache = CounterMetricFamily(
            "tokenward_sidecar_cache", "How calls met the memory.", labels=("result",)
        )
        for result, count in self.cache.items():
            cache.add_metric((result,), count)
        yield cache
        bounds = [*map(str, DURATION_BUCKETS), "+Inf"]
        durations = HistogramMetricFamily(
            "tokenward_sidecar_request_duration_seconds",
            "Time until a call of a door had the head of its answer.",
            labels=("door",),
        )
        for name, door in self.doors.items():
            counts = list(zip(bounds, accumulate(door.buckets), strict=True))
            durations.add_metric((name,), counts, door.seconds)
        yield durations
