"""The authserver's metrics. Labels come from closed sets: routes, reason codes, upstream names."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chassis.probes import DURATION_BUCKETS


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "tokenward_authserver"
        self.requests = Counter(
            f"{prefix}_requests", "Requests answered", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            f"{prefix}_request_duration_seconds",
            "Time to answer",
            ["route"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        # A child is looked up under a lock each time; the hot paths' label sets are few and closed.
        self.requests_of = cache(self.requests.labels)
        self.request_seconds_of = cache(self.request_seconds.labels)
        self.reloads = Counter(
            f"{prefix}_config_reloads",
            "Changes of the configuration, taken or refused",
            ["result"],
            registry=registry,
        )
        self.credential_reloads = Counter(
            "tokenward_credential_reloads",
            "Changed certificates, keys and CAs of the listeners, by whether they could be used",
            ["result"],
            registry=registry,
        )
        self.expired_cas = Gauge(
            "tokenward_expired_cas",
            "Expired CAs in the bundle of client CAs, which are left out",
            registry=registry,
        )
        self.releases = Counter(
            f"{prefix}_releases",
            "Upstream access tokens released to their owner",
            ["upstream", "result"],
            registry=registry,
        )
        self.releases_of = cache(self.releases.labels)
        self.denials = Counter(
            f"{prefix}_denials", "Refusals at the internal listener", ["reason"], registry=registry
        )
        self.refreshes = Counter(
            f"{prefix}_upstream_refresh",
            "Refresh tokens presented upstream",
            ["upstream", "result"],
            registry=registry,
        )
        self.refresh_seconds = Histogram(
            f"{prefix}_upstream_refresh_duration_seconds",
            "Time of an upstream refresh",
            ["upstream"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.sessions = Gauge(f"{prefix}_sessions", "Live sessions", registry=registry)
        self.connections = Gauge(
            f"{prefix}_connections", "Connections", ["upstream", "state"], registry=registry
        )
