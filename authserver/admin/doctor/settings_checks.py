"""What a configuration without faults says, and hardly means."""

from collections import Counter
from collections.abc import Iterator

from authserver.admin.doctor.finding import Finding
from authserver.config.exchanged_upstreams import ExchangedUpstream
from authserver.config.settings import Settings


def settings_findings(settings: Settings, now: float) -> Iterator[Finding]:
    """`now` is Unix time."""
    yield from _resources(settings)
    yield from _upstreams(settings, now)
    yield from _clients(settings)
    yield from _listeners(settings)
    yield from _lifetimes(settings)
    yield from _signing_keys(settings)


def _resources(settings: Settings) -> Iterator[Finding]:
    for index, entry in enumerate(settings.resources):
        place, owner = f"resources[{index}].workload", entry.entry().owner
        if not settings.allowed_workloads.admit(owner):
            yield Finding(
                "workload_not_allowed", place,
                f"{owner} is not in allowedWorkloads, so nothing is released to it",
                "add its namespace and name to allowedWorkloads",
            )  # fmt: skip
        if owner.spiffe_id(settings.trust_domain) in settings.denied_certificates.spiffe_ids:
            yield Finding(
                "workload_denied", place,
                f"{owner} is in deniedCertificates, so nothing is released to it",
                "remove it from deniedCertificates.spiffeIds once the pod has a new key",
            )  # fmt: skip
    if not settings.resources:
        yield Finding(
            "no_resources", "resources", "no server is configured, so nobody can sign in",
            "add a resource for each MCP server, or resourcesDir",
        )  # fmt: skip


def _upstreams(settings: Settings, now: float) -> Iterator[Finding]:
    used = {name for entry in settings.resources for name in entry.entry().upstreams}
    for index, upstream in enumerate(settings.upstreams):
        place = f"upstreams[{index}]"
        if upstream.name not in used and settings.resources:
            yield Finding(
                "upstream_unused", place, f"no resource names {upstream.name}",
                "add it to the upstreams of a resource, or remove it",
            )  # fmt: skip
        if isinstance(upstream, ExchangedUpstream):
            continue
        for position, former in enumerate(upstream.former):
            if former.ends_at <= now:
                yield Finding(
                    "former_registration_over", f"{place}.former[{position}]",
                    "its `until` is past: its connections are neither used nor revoked",
                    "set a later `until`, or remove the entry",
                )  # fmt: skip


def _clients(settings: Settings) -> Iterator[Finding]:
    clients = settings.clients
    if not (clients.static or clients.registration.enabled or clients.metadata_documents.enabled):
        yield Finding(
            "no_way_for_clients", "clients",
            "registration and metadata documents are off and no client is configured",
            "turn registration or metadataDocuments on, or add clients.static",
        )  # fmt: skip


def _listeners(settings: Settings) -> Iterator[Finding]:
    listeners = settings.listeners
    ports = Counter(one.port for one in (listeners.public, listeners.internal, listeners.ops))
    for port, count in ports.items():
        if port and count > 1:
            yield Finding(
                "port_twice", "listeners", f"{count} of them have port {port}",
                "give each listener a port of its own",
            )  # fmt: skip
    if listeners.public.behind_tls_proxy and not listeners.public.trusted_proxies:
        yield Finding(
            "no_trusted_proxies", "listeners.public.trustedProxies",
            "behind a proxy, all callers share the limits of one address",
            "name the networks of the proxy",
        )  # fmt: skip
    plain = listeners.public.tls is None and not listeners.public.behind_tls_proxy
    if plain and settings.issuer.startswith("https://"):
        yield Finding(
            "https_issuer_on_plain_http", "listeners.public",
            "the issuer is https and this listener has neither tls nor a proxy that ends it",
            "set tls, or behindTLSProxy",
        )  # fmt: skip


def _lifetimes(settings: Settings) -> Iterator[Finding]:
    lifetimes = settings.lifetimes
    if lifetimes.refresh_token_idle > lifetimes.refresh_token_absolute:
        yield Finding(
            "idle_longer_than_absolute", "lifetimes.refreshTokenIdle",
            "it is longer than refreshTokenAbsolute, which ends every session first",
            "raise refreshTokenAbsolute or lower refreshTokenIdle",
        )  # fmt: skip
    if lifetimes.access_token > lifetimes.refresh_token_idle:
        yield Finding(
            "access_token_outlives_session", "lifetimes.accessToken",
            "it is longer than refreshTokenIdle: a session ends before its access token",
            "lower accessToken, or raise refreshTokenIdle",
        )  # fmt: skip


def _signing_keys(settings: Settings) -> Iterator[Finding]:
    # The first one signs; the configuration is refused where it must not.
    for position, key in enumerate(settings.signing_keys[1:], start=1):
        if not key.announced and key.retired_at is None:
            yield Finding(
                "second_key_neither", f"signingKeys[{position}]",
                "it is neither announced nor retired, so a stolen copy of it signs for ever",
                "add `announced: true` before it takes over, or `retiredAt` after",
            )  # fmt: skip
