"""The metrics of the webhook. Labels come from closed sets."""

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chassis.probes import DURATION_BUCKETS
from webhook.reasons import Reason


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        def name(rest: str) -> str:
            return f"tokenward_webhook_{rest}"

        decisions = Counter(
            name("decisions_total"), "Pods decided on.", ("decision", "reason"), registry=registry
        )
        # The counter of a decision and a reason: looking one up costs more than counting.
        self.decisions = lru_cache(maxsize=64)(decisions.labels)
        # At 0 from the start: an alert on an increase does not see a first sample.
        self.decisions("error", Reason.FAILED)
        self.duration = Histogram(
            name("request_duration_seconds"),
            "From the body's arrival to the answer.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.body_bytes = Histogram(
            name("request_body_bytes"),
            "Size of reviews.",
            buckets=tuple(1024 * 4**power for power in range(8)),
            registry=registry,
        )
        self.config_reloads = Counter(
            name("config_reloads_total"),
            "Changed configuration files.",
            ("result",),
            registry=registry,
        )
        for result in ("success", "failure"):
            self.config_reloads.labels(result)
        self.certificate_expiry = Gauge(
            name("serving_cert_expiry_timestamp_seconds"),
            "When the serving certificate ends.",
            registry=registry,
        )
