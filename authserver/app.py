"""Puts an authserver together from its settings; the only place that builds collaborators."""

from collections.abc import Mapping

from aiohttp import web

from authserver.account.connect import Connect
from authserver.account.connect_subject import ConnectSubjects
from authserver.account.connections import ConnectionsPage
from authserver.account.sign_in import AccountSignIn
from authserver.audit import Audit
from authserver.clients.assertions import ClientAssertions
from authserver.clients.authentication import ClientAuthentication
from authserver.clients.directory import ClientDirectory
from authserver.clients.metadata_documents import FetchLimits, MetadataDocuments
from authserver.clients.safe_fetch import SafeFetcher
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
from authserver.endpoints.discovery import MetadataDocument
from authserver.endpoints.introspection import Introspection
from authserver.endpoints.live_tokens import LiveTokens
from authserver.endpoints.registration import Registration
from authserver.endpoints.revocation import Revocation
from authserver.endpoints.token_endpoint import GrantStores, TokenEndpoint, TokenIssuing
from authserver.endpoints.userinfo import Userinfo
from authserver.handles import new_handle
from authserver.housekeeping import CleanUpStores, Housekeeping
from authserver.internal.exchanged_release import ExchangedRelease
from authserver.internal.listener import Internal
from authserver.internal.revocation_feed import RevocationFeed
from authserver.internal.svid import SvidReader
from authserver.internal.token_exchange import Exchange
from authserver.internal.token_limits import TokenLimits
from authserver.listener_tls import INTERNAL, own_names
from authserver.live_config import LiveConfig
from authserver.metrics import Metrics
from authserver.public.account_pages import AccountFlows
from authserver.public.client_ip import Sources
from authserver.public.connection_limits import ConnectionLimits
from authserver.public.listener import Flows, Public
from authserver.public.middleware import Site
from authserver.public.pages import Pages
from authserver.public.rate_limits import Throttling
from authserver.public.request_body import DEFAULT_BODY_SECONDS
from authserver.rate_limit import RateLimit, SharedRateLimit
from authserver.sign_in.authorize import Authorize
from authserver.sign_in.browser_session import BrowserLogin
from authserver.sign_in.callback import Callback
from authserver.sign_in.consent import Consent
from authserver.sign_in.next_step import NextStep
from authserver.sign_in.services import SignInServices
from authserver.sign_in.sign_out import SignOut
from authserver.sign_in.upstream_login import UpstreamLogin
from authserver.storage.account_overview import AccountOverview
from authserver.storage.authorization_codes import AuthorizationCodes
from authserver.storage.browser_sessions import BrowserSessions
from authserver.storage.claim_rows import ClaimRows
from authserver.storage.clients import Clients
from authserver.storage.completed_sign_ins import SignIns
from authserver.storage.connected_accounts import ConnectedAccounts
from authserver.storage.connections import Connections
from authserver.storage.consents import Consents
from authserver.storage.contract import Database
from authserver.storage.exchanged_tokens import ExchangedTokens
from authserver.storage.expiry import Expiry
from authserver.storage.feed_followers import FeedFollowers
from authserver.storage.leases import Leases
from authserver.storage.operator_events import OperatorEvents
from authserver.storage.orphaned_owners import OrphanedOwners
from authserver.storage.pending_sign_ins import PendingSignIns
from authserver.storage.refresh_tokens import RefreshTokens
from authserver.storage.revocations import DatabaseIdentity, Revocations
from authserver.storage.sessions import Sessions
from authserver.storage.upstream_revocations import UpstreamRevocations
from authserver.storage.used_assertions import UsedAssertions
from authserver.storage.used_connect_links import UsedConnectLinks
from authserver.storage.users import Users
from authserver.storage.users_needed import UsersNeeded
from authserver.tokens.access_tokens import AccessTokens
from authserver.tokens.id_tokens import IdTokens
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

        self._registered = Clients(database)
        self._pending_sign_ins = PendingSignIns(
            database, live.keyring, max_pending=settings.limits.pending_sign_ins
        )
        self._sessions, self._codes = Sessions(database), AuthorizationCodes(database)
        self._refresh_tokens = RefreshTokens(database, live.keyring)
        self._connections = Connections(database, live.keyring)
        self._consents, self._browsers = Consents(database), BrowserSessions(database, live.keyring)
        self._sign_ins = SignIns(
            database, live.keyring, self._sessions, self._codes, self._connections
        )

        self._connect_links = ConnectLinks(
            settings.issuer, live.keyring, UsedConnectLinks(database), clock
        )
        self._connected_accounts = ConnectedAccounts(database, live.keyring, self._connections)
        self._users, self._overview = Users(database), AccountOverview(database, live.keyring)

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
        self._used_assertions = UsedAssertions(database)
        self._tokens = AccessTokens(settings.issuer, live.keys, settings.lifetimes.access_token)
        self._revoker = UpstreamRevoker(
            UpstreamRevocations(database, live.keyring),
            self._connections,
            live.binding,
            self._audit,
            self._metrics,
            clock,
        )
        self._termination = SessionTermination(
            self._sessions, self._connections, self._revoker, self._audit, clock
        )
        self._claims = ClaimRows(database, live.keyring)
        claimed_refresh = ClaimedRefresh(
            self._connections,
            self._claims,
            live.binding,
            self._revoker,
            self._metrics,
            clock,
            new_handle,
            refresh_timeouts,
        )
        self._refresher = TokenRefresher(
            claimed_refresh, self._claims, live.binding, clock, refresh_timeouts
        )
        self._exchanged_tokens = ExchangedTokens(database, live.keyring)
        self._exchanger = TokenExchanger(
            self._refresher, claimed_refresh, self._exchanged_tokens, clock, refresh_timeouts
        )
        self._session_health = SessionHealth(self._connections, self._users, live.binding, clock)
        self.housekeeping = Housekeeping(
            CleanUpStores(
                Leases(database),
                Expiry(database),
                OrphanedOwners(database),
                live.absent_registrations,
                self._sessions,
                self._connections,
                self._exchanged_tokens,
                OperatorEvents(database),
                UsersNeeded(database),
            ),
            live.resources,
            live.binding,
            self._termination,
            self._revoker,
            self._audit,
            self._metrics,
            clock,
            replica=new_handle(),
            absolute_seconds=settings.lifetimes.refresh_token_absolute,
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
            self._flows(),
            self._live.upstreams,
            self._throttling(),
            session_seconds=settings.lifetimes.browser_session,
            body_seconds=body_seconds,
        ).application()

    def _throttling(self) -> Throttling:
        return Throttling(self._sources(), self._settings.limits, self._clock)

    def _sources(self) -> Sources:
        listener = self._settings.listeners.public
        return Sources(listener.trusted_proxies, behind_proxy=listener.behind_tls_proxy)

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
        return Internal(
            Exchange(
                self._tokens,
                self._live.resources,
                self._connections,
                self._sessions,
                self._refresher,
                ExchangedRelease(self._exchanged_tokens, self._exchanger),
                self._live.upstreams,
                self._connect_links,
                TokenLimits.of(self._settings.limits),
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

    def _flows(self) -> Flows:
        settings, live, clock = self._settings, self._live, self._clock
        directory, authentication = self._clients()
        services = SignInServices(
            settings.issuer,
            live.resources,
            live.upstreams,
            self._pending_sign_ins,
            self._audit,
            self._metrics,
            clock,
            new_handle,
        )
        upstream_login = UpstreamLogin(services)
        browser_login = BrowserLogin(self._browsers, self._connections, live.upstreams, clock)
        next_step = NextStep(services, upstream_login, self._sign_ins, settings.lifetimes)
        live_tokens = LiveTokens(self._sessions, self._tokens, clock)
        return Flows(
            self._metadata(),
            live.keys,
            Authorize(services, directory, browser_login, self._consents, next_step),
            Consent(services, browser_login, self._sessions, next_step),
            Callback(services, upstream_login, next_step),
            self._account(services, upstream_login, browser_login, directory),
            SignOut(browser_login, self._browsers, self._audit),
            TokenEndpoint(
                authentication,
                self._registered,
                GrantStores(self._codes, self._refresh_tokens, self._sessions),
                self._session_health,
                self._termination,
                TokenIssuing(
                    self._tokens,
                    IdTokens(settings.issuer, live.keys),
                    settings.lifetimes,
                    clock,
                    new_handle,
                ),
                live.resources,
                self._audit,
            ),
            self._registration(),
            Revocation(
                authentication,
                self._sessions,
                self._refresh_tokens,
                self._termination,
                self._tokens,
                self._audit,
                clock,
            ),
            Introspection(
                settings.issuer,
                authentication,
                live_tokens,
                self._sessions,
                self._refresh_tokens,
                clock,
            ),
            Userinfo(live_tokens),
        )

    def _account(
        self,
        services: SignInServices,
        upstream_login: UpstreamLogin,
        browser_login: BrowserLogin,
        directory: ClientDirectory,
    ) -> AccountFlows:
        lifetimes = self._settings.lifetimes
        subjects = ConnectSubjects(self._connect_links, self._sessions, services, directory)
        return AccountFlows(
            Connect(
                services,
                upstream_login,
                browser_login,
                subjects,
                self._connect_links,
                self._users,
                self._connected_accounts,
                session_seconds=lifetimes.browser_session,
            ),
            ConnectionsPage(
                self._overview,
                browser_login,
                self._browsers,
                subjects,
                self._connect_links,
                self._termination,
                self._live.resources,
                self._live.upstreams,
                self._audit,
                self._clock,
                absolute_seconds=lifetimes.refresh_token_absolute,
            ),
            AccountSignIn(
                services,
                upstream_login,
                self._users,
                self._connected_accounts,
                session_seconds=lifetimes.browser_session,
            ),
        )

    def _metadata(self) -> MetadataDocument:
        clients = self._settings.clients
        return MetadataDocument(
            self._settings.issuer,
            self._live.resources,
            self._live.keys,
            registration=clients.registration.enabled,
            documents=clients.metadata_documents.enabled,
        )

    def _clients(self) -> tuple[ClientDirectory, ClientAuthentication]:
        settings, limits = self._settings, self._settings.limits
        loopback, documents = settings.on_loopback, settings.clients.metadata_documents
        factor = self._sources().factor
        web = SafeFetcher(loopback=loopback, denied=documents.denied_networks)
        metadata_documents = MetadataDocuments(
            web,
            loopback=loopback,
            limits=FetchLimits(
                RateLimit(
                    "documents", limits.metadata_documents_per_source_per_minute * factor, 60
                ),
                RateLimit("documents", limits.metadata_documents_per_host_per_minute, 60),
                RateLimit("documents", limits.metadata_documents_per_minute, 60),
                RateLimit("documents", limits.metadata_documents_per_host_per_minute, 60),
            ),
        )
        directory = ClientDirectory(
            settings.clients.static,
            self._registered,
            metadata_documents if documents.enabled else None,
            self._sessions,
        )
        assertions = ClientAssertions(
            settings.issuer, web, self._used_assertions, self._clock, loopback=loopback
        )
        return directory, ClientAuthentication(directory, assertions)

    def _registration(self) -> Registration | None:
        if not self._settings.clients.registration.enabled:
            return None
        limits = self._settings.limits
        return Registration(
            self._registered,
            RateLimit(
                "registrations",
                limits.registrations_per_source_per_minute * self._sources().factor,
                60,
            ),
            SharedRateLimit("registrations", limits.registrations_per_minute, 60),
            self._audit,
            self._clock,
            new_handle,
            max_unused=limits.unused_registrations,
        )
