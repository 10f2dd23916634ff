"""The metrics of the controller. Labels come from closed sets."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chassis.probes import DURATION_BUCKETS


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        def name(rest: str) -> str:
            return f"tokenward_controller_{rest}"

        self.reconciles = Counter(
            name("reconciles_total"), "Reconciliations.", ("kind", "result"), registry=registry
        )
        self.duration = Histogram(
            name("reconcile_duration_seconds"),
            "From the key's turn to its last write.",
            ("kind",),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.queue_depth = Gauge(
            name("queue_depth"), "Keys that wait for a worker.", registry=registry
        )
        self.queue_age = Gauge(
            name("queue_age_seconds"), "How long the oldest of them has waited.", registry=registry
        )
        self.watch_restarts = Counter(
            name("watch_restarts_total"), "Watches begun anew.", ("kind",), registry=registry
        )
        self.certificates = Counter(
            name("certificates_issued_total"),
            "Certificates issued, denied or failed.",
            ("source", "result"),
            registry=registry,
        )
        self.soonest_expiry = Gauge(
            name("soonest_certificate_expiry_timestamp_seconds"),
            "When the first of our certificates ends.",
            registry=registry,
        )
        self.pods_without_bundle = Gauge(
            name("pods_without_bundle"),
            "Injected pods that do not trust the newest authority of servers yet.",
            registry=registry,
        )
        self.leader = Gauge(name("leader"), "1 while this replica leads.", registry=registry)
