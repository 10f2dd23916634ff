"""The authserver's metrics. Labels come from closed sets: routes, reason codes, upstream names."""

from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chassis.probes import DURATION_BUCKETS

_PREFIX: Final = "tokenward_authserver"


class Metrics:
    """Every metric of the process, by the part that counts it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of_both_listeners(registry)
        self._of_internal_listener(registry)
        self._of_upstreams(registry)
        self._of_storage(registry)
        self._of_configuration(registry)

    def _of_both_listeners(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            f"{_PREFIX}_requests", "Requests answered", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            f"{_PREFIX}_request_duration_seconds",
            "Time to answer",
            ["route"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        # A child is looked up under a lock each time; the hot paths' label sets are few and closed.
        self.requests_of = cache(self.requests.labels)
        self.request_seconds_of = cache(self.request_seconds.labels)

    def _of_internal_listener(self, registry: CollectorRegistry) -> None:
        self.releases = Counter(
            f"{_PREFIX}_releases",
            "Upstream access tokens released to their owner",
            ["upstream", "result"],
            registry=registry,
        )
        self.releases_of = cache(self.releases.labels)
        self.denials = Counter(
            f"{_PREFIX}_denials", "Refusals at the internal listener", ["reason"], registry=registry
        )

        self.revocation_polls = Gauge(
            f"{_PREFIX}_revocation_polls",
            "Sidecars that wait at this replica for revocations",
            registry=registry,
        )
        self.revocations = Counter(
            f"{_PREFIX}_revocations",
            "Ended sessions and connections that this replica has seen",
            ["kind"],
            registry=registry,
        )

    def _of_upstreams(self, registry: CollectorRegistry) -> None:
        self.upstream_logins = Counter(
            f"{_PREFIX}_upstream_logins",
            "Logins that upstreams answered, or could not be asked for",
            ["upstream", "outcome"],
            registry=registry,
        )
        self.refreshes = Counter(
            f"{_PREFIX}_upstream_refresh",
            "Refresh tokens presented upstream",
            ["upstream", "result"],
            registry=registry,
        )
        self.refresh_seconds = Histogram(
            f"{_PREFIX}_upstream_refresh_duration_seconds",
            "Time of an upstream refresh",
            ["upstream"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )

        self.upstream_revocations = Counter(
            f"{_PREFIX}_upstream_revocations",
            "What attempts to revoke deleted tokens at their upstream came to",
            ["upstream", "result"],
            registry=registry,
        )
        self.upstream_revocations_pending = Gauge(
            f"{_PREFIX}_upstream_revocations_pending",
            "Deleted tokens that wait until their upstream revokes them",
            ["upstream"],
            registry=registry,
        )
        self.oldest_upstream_revocation = Gauge(
            f"{_PREFIX}_upstream_revocations_oldest_timestamp_seconds",
            "When the one of them was deleted that waits longest, in Unix time",
            ["upstream"],
            registry=registry,
        )

    def _of_storage(self, registry: CollectorRegistry) -> None:
        self.sessions = Gauge(f"{_PREFIX}_sessions", "Live sessions", registry=registry)
        self.connections = Gauge(
            f"{_PREFIX}_connections", "Connections", ["upstream", "state"], registry=registry
        )
        self.users_needed = Gauge(
            f"{_PREFIX}_users_needed_within_week",
            "Users whose authorization ends within seven days, however much they use it",
            registry=registry,
        )

    def _of_configuration(self, registry: CollectorRegistry) -> None:
        self.reloads = Counter(
            f"{_PREFIX}_config_reloads",
            "Changes of the configuration, by what became of them",
            ["result"],
            registry=registry,
        )
        _begin(self.reloads, "taken", "refused", "postponed")
        self.credential_reloads = Counter(
            "tokenward_credential_reloads",
            "Changed certificates, keys and CAs of the listeners, by whether they could be used",
            ["result"],
            registry=registry,
        )
        _begin(self.credential_reloads, "ok", "failed")
        self.serving_cert_expiry = Gauge(
            f"{_PREFIX}_serving_cert_expiry_timestamp_seconds",
            "When the certificate of a listener expires, in Unix time",
            ["listener"],
            registry=registry,
        )
        self.expired_cas = Gauge(
            "tokenward_expired_cas",
            "Expired CAs in the bundle of client CAs, which are left out",
            registry=registry,
        )


def _begin(counter: Counter, *values: str) -> None:
    """Let a counter stand at 0 for each value: Prometheus sees no increase at a first sample."""
    for value in values:
        counter.labels(value)
