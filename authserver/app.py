"""Puts an authserver together from its settings, with `public_flows` for its public side."""

from collections.abc import Mapping

from aiohttp import web

from authserver.audit import Audit
from authserver.config.settings import Settings
from authserver.config.watcher import ReloadResult
from authserver.connections.connect_links import ConnectLinks
from authserver.connections.refresh_claims import ClaimedRefresh
from authserver.connections.refresher import TokenRefresher
from authserver.connections.session_health import SessionHealth
from authserver.connections.termination import SessionTermination
from authserver.connections.timeouts import RefreshTimeouts
from authserver.connections.token_exchanger import TokenExchanger
from authserver.connections.upstream_revocation import UpstreamRevoker
from authserver.handles import new_handle
from authserver.housekeeping import CleanUpStores, Housekeeping
from authserver.internal.exchanged_release import ExchangedRelease
from authserver.internal.listener import Internal
from authserver.internal.revocation_feed import RevocationFeed
from authserver.internal.subject_tokens import SubjectTokens
from authserver.internal.svid import SvidReader
from authserver.internal.token_exchange import Exchange
from authserver.internal.token_limits import TokenLimits
from authserver.listener_tls import INTERNAL, own_names
from authserver.live_config import LiveConfig
from authserver.metrics import Metrics
from authserver.public.client_ip import Sources
from authserver.public.connection_limits import ConnectionLimits
from authserver.public.listener import Public
from authserver.public.middleware import Site
from authserver.public.pages import Pages
from authserver.public.rate_limits import Throttling
from authserver.public.request_body import DEFAULT_BODY_SECONDS
from authserver.public_flows import Parts, PublicFlows, sources_of
from authserver.storage.contract import Database
from authserver.storage.expiry import Expiry
from authserver.storage.feed_followers import FeedFollowers
from authserver.storage.leases import Leases
from authserver.storage.operator_events import OperatorEvents
from authserver.storage.orphaned_owners import OrphanedOwners
from authserver.storage.revocations import DatabaseIdentity, Revocations
from authserver.storage.users_needed import UsersNeeded
from authserver.stores import Stores
from authserver.tokens.access_tokens import AccessTokens
from authserver.upstream.http_client import UpstreamHttp
from chassis.clock import Clock
from chassis.logs import Log
from chassis.probes import Readiness, new_registry
from chassis.tls.self_handshake import Certificate

_log = Log("app")


class Authserver:
    """Everything a running authserver is made of, short of sockets."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        http: UpstreamHttp,
        clock: Clock,
        *,
        audit_key: bytes,
        refresh_timeouts: RefreshTimeouts = RefreshTimeouts(),  # noqa: B008 - a frozen value
    ) -> None:
        self._settings, self._clock = settings, clock
        self.registry, self.readiness = new_registry(), Readiness("listening")
        self._metrics = Metrics(self.registry)

        live = self._live = LiveConfig(settings, database, http, clock)
        self._svids = SvidReader(
            settings.trust_domain,
            max_lifetime=settings.lifetimes.workload_certificate,
            own_names=own_names(settings.listeners.internal),
        )

        stores = self._stores = Stores.of(
            database, live.keyring, max_pending_sign_ins=settings.limits.pending_sign_ins
        )
        self._connect_links = ConnectLinks(
            settings.issuer, live.keyring, stores.used_connect_links, clock
        )
        self._audit = Audit(audit_key)
        self.revocation_feed = RevocationFeed(
            Revocations(database),
            DatabaseIdentity(database),
            FeedFollowers(database),
            self._audit,
            self._metrics,
            clock,
            new_handle(),
        )
        self._tokens = AccessTokens(settings.issuer, live.keys, settings.lifetimes.access_token)
        self._revoker = UpstreamRevoker(
            stores.upstream_revocations,
            stores.connections,
            live.binding,
            self._audit,
            self._metrics,
            clock,
        )
        self._termination = SessionTermination(
            stores.sessions, stores.connections, self._revoker, self._audit, clock
        )
        claimed_refresh = ClaimedRefresh(
            stores.connections,
            stores.claims,
            live.binding,
            self._revoker,
            self._metrics,
            clock,
            new_handle,
            refresh_timeouts,
        )
        self._refresher = TokenRefresher(
            claimed_refresh, stores.claims, live.binding, clock, refresh_timeouts
        )
        self._exchanger = TokenExchanger(
            self._refresher, claimed_refresh, stores.exchanged_tokens, clock, refresh_timeouts
        )
        self._session_health = SessionHealth(stores.connections, live.binding, clock)
        self.housekeeping = self._housekeeping(database)

    def _housekeeping(self, database: Database) -> Housekeeping:
        return Housekeeping(
            CleanUpStores(
                Leases(database),
                Expiry(database),
                OrphanedOwners(database),
                self._live.absent_registrations,
                self._stores.sessions,
                self._stores.connections,
                self._stores.exchanged_tokens,
                OperatorEvents(database),
                UsersNeeded(database),
            ),
            self._live.resources,
            self._live.binding,
            self._termination,
            self._revoker,
            self._audit,
            self._metrics,
            self._clock,
            replica=new_handle(),
            absolute_seconds=self._settings.lifetimes.refresh_token_absolute,
        )

    async def start(self) -> None:
        """Before anything is served: bring stored rows of an earlier version up to date."""
        if bound := await self._live.binding.bind():
            _log.info("connections_bound", count=bound)

    async def reload(self, settings: Settings) -> None:
        """Put what may change without a restart into force, all of it or nothing."""
        await self._live.replace(settings)

    @property
    def resource_files(self) -> Mapping[str, str]:
        """The SHA-256 of each file of `resourcesDir` that is in force, by name."""
        return self._live.resource_files.in_force

    async def poll_resources(self) -> None:
        """Put changed files of `resourcesDir` into force."""
        if self._live.poll_resources():
            await self.housekeeping.end_inherited()

    def reloaded(self, result: ReloadResult) -> None:
        self._metrics.reloads.labels(result).inc()

    def credential_reloaded(self, place: str, certificate: Certificate | None) -> None:
        """A listener's changed files took over with this certificate, or were refused."""
        self._metrics.credential_reloads.labels("ok" if certificate else "failed").inc()
        if certificate is not None:
            self.certificate_in_use(place, certificate)
        if certificate is not None and place == INTERNAL:
            self._svids.set_own_names(certificate.dns_names)

    def certificate_in_use(self, place: str, certificate: Certificate) -> None:
        """A listener serves with this certificate from now on."""
        listener = "internal" if place == INTERNAL else "public"
        self._metrics.serving_cert_expiry.labels(listener).set(certificate.not_after)

    def expired_cas(self, count: int) -> None:
        """How many CAs of the bundle in use have expired and vouch for nobody any more."""
        self._metrics.expired_cas.set(count)

    def public(self, body_seconds: float = DEFAULT_BODY_SECONDS) -> web.Application:
        """The internet-facing listener's application."""
        settings = self._settings
        if self._sources().shared:
            _log.warning(
                "trusted_proxies_not_set",
                consequence="all callers behind the proxy share one limit",
                remedy="set listeners.public.trustedProxies",
            )
        pages = Pages(settings.issuer, settings.pages, self._live.upstreams)
        return Public(
            Site(settings.issuer, pages, self._metrics, new_handle),
            self._public_flows().build(),
            self._live.upstreams,
            self._throttling(),
            session_seconds=settings.lifetimes.browser_session,
            body_seconds=body_seconds,
        ).application()

    def _throttling(self) -> Throttling:
        return Throttling(self._sources(), self._settings.limits, self._clock)

    def _sources(self) -> Sources:
        return sources_of(self._settings)

    def _public_flows(self) -> PublicFlows:
        parts = Parts(
            self._audit,
            self._metrics,
            self._clock,
            self._tokens,
            self._connect_links,
            self._termination,
            self._session_health,
        )
        return PublicFlows(self._settings, self._live, self._stores, parts)

    def connection_limits(self) -> ConnectionLimits:
        """How the public listener treats connections; behind a proxy all have one source."""
        limits, listener = self._settings.limits, self._settings.listeners.public
        proxied = listener.behind_tls_proxy or bool(listener.trusted_proxies)
        return ConnectionLimits(
            max_per_source=None if proxied else limits.connections_per_source,
            max_total=limits.connections,
        )

    def internal(self) -> Internal:
        """What answers on the mTLS listener."""
        limits = TokenLimits.of(self._settings.limits)
        subject_tokens = SubjectTokens(self._tokens, self._live.resources, limits, self._clock)
        return Internal(
            subject_tokens,
            Exchange(
                subject_tokens,
                self._stores.connections,
                self._stores.sessions,
                self._refresher,
                ExchangedRelease(self._stores.exchanged_tokens, self._exchanger),
                self._live.upstreams,
                self._connect_links,
                limits,
                self._clock,
            ),
            self.revocation_feed,
            self._svids,
            self._live.workload_policy,
            self._live.apis,
            self._audit,
            self._metrics,
            self._clock,
        )

    async def drain(self) -> None:
        """Let refreshes and revocations under way come to their durable end."""
        await self._exchanger.drain()
        await self._refresher.drain()
        await self._revoker.drain()
        await self.housekeeping.drain()
