"""The sidecar's metrics: every label value comes from a closed set, and exists from the start."""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chassis.probes import DURATION_BUCKETS
from sidecar.refusals import RESULTS

CACHE_RESULTS: Final = ("hit", "miss", "coalesced", "negative")


class Metrics:
    """What happened, counted; children are looked up once, for the hot path's sake."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = _counters(
            registry, "tokenward_sidecar_requests", "Calls of the local API.", RESULTS
        )
        self._cache = _counters(
            registry, "tokenward_sidecar_cache", "How calls met the memory.", CACHE_RESULTS
        )
        self._reloads = _counters(
            registry, "tokenward_credential_reloads", "Changed credential files.", ("ok", "failed")
        )
        self._request_seconds = Histogram(
            "tokenward_sidecar_request_duration_seconds",
            "Time to answer a call of the local API.",
            registry=registry,
            buckets=DURATION_BUCKETS,
        )
        exchanges = Histogram(
            "tokenward_sidecar_exchange_duration_seconds",
            "Time of an exchange with the authserver, retries included.",
            ("result",),
            registry=registry,
            buckets=DURATION_BUCKETS,
        )
        self._exchange_seconds = {result: exchanges.labels(result) for result in RESULTS}
        self._entries = Gauge(
            "tokenward_sidecar_cache_entries", "Tokens held in memory.", registry=registry
        )
        self._expiry = Gauge(
            "tokenward_credential_expiry_timestamp_seconds",
            "When the certificate in use expires; 0 while there is none.",
            registry=registry,
        )

    def answered(self, result: str, seconds: float) -> None:
        self._requests[result].inc()
        self._request_seconds.observe(seconds)

    def cache(self, result: str) -> None:
        self._cache[result].inc()

    def exchanged(self, result: str, seconds: float) -> None:
        self._exchange_seconds[result].observe(seconds)

    def credential_reloaded(self, succeeded: bool) -> None:
        self._reloads["ok" if succeeded else "failed"].inc()

    def credential_expires(self, at: float) -> None:
        self._expiry.set(at)

    def count_entries(self, entries: Callable[[], int]) -> None:
        self._entries.set_function(entries)


def _counters(
    registry: CollectorRegistry, name: str, text: str, results: Iterable[str]
) -> dict[str, Counter]:
    counter = Counter(name, text, ("result",), registry=registry)
    return {result: counter.labels(result) for result in sorted(results)}
