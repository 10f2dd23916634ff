"""Puts together what answers on the public listener, from parts that both listeners share."""

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
from authserver.connections.connect_links import ConnectLinks
from authserver.connections.session_health import SessionHealth
from authserver.connections.termination import SessionTermination
from authserver.endpoints.discovery import MetadataDocument
from authserver.endpoints.introspection import Introspection
from authserver.endpoints.live_tokens import LiveTokens
from authserver.endpoints.registration import Registration
from authserver.endpoints.revocation import Revocation
from authserver.endpoints.token_endpoint import GrantStores, TokenEndpoint, TokenIssuing
from authserver.endpoints.userinfo import Userinfo
from authserver.handles import new_handle
from authserver.live_config import LiveConfig
from authserver.metrics import Metrics
from authserver.public.account_pages import AccountFlows
from authserver.public.client_ip import Sources
from authserver.public.listener import Flows
from authserver.rate_limit import RateLimit, SharedRateLimit
from authserver.sign_in.authorize import Authorize
from authserver.sign_in.browser_session import BrowserLogin
from authserver.sign_in.callback import Callback
from authserver.sign_in.consent import Consent
from authserver.sign_in.next_step import NextStep
from authserver.sign_in.services import SignInServices
from authserver.sign_in.sign_out import SignOut
from authserver.sign_in.upstream_login import UpstreamLogin
from authserver.stores import Stores
from authserver.tokens.access_tokens import AccessTokens
from authserver.tokens.id_tokens import IdTokens
from authserver.values import Value
from chassis.clock import Clock


class Parts(Value, frozen=True):
    """What the flows of the public listener share with the rest of the authserver."""

    audit: Audit
    metrics: Metrics
    clock: Clock
    tokens: AccessTokens
    connect_links: ConnectLinks
    termination: SessionTermination
    session_health: SessionHealth


def sources_of(settings: Settings) -> Sources:
    """Where the callers of the public listener come from."""
    listener = settings.listeners.public
    return Sources(listener.trusted_proxies, behind_proxy=listener.behind_tls_proxy)


class PublicFlows:
    def __init__(self, settings: Settings, live: LiveConfig, stores: Stores, parts: Parts) -> None:
        self._settings, self._live, self._stores, self._parts = settings, live, stores, parts

    def build(self) -> Flows:
        """Each flow once; the public listener routes to them."""
        settings, live, stores, parts = self._settings, self._live, self._stores, self._parts
        directory, authentication = self.clients()
        services = SignInServices(
            settings.issuer,
            live.resources,
            live.upstreams,
            stores.pending_sign_ins,
            parts.audit,
            parts.metrics,
            parts.clock,
            new_handle,
        )
        upstream_login = UpstreamLogin(services)
        browser_login = BrowserLogin(
            stores.browsers, stores.connections, live.upstreams, parts.clock
        )
        next_step = NextStep(services, upstream_login, stores.sign_ins, settings.lifetimes)
        live_tokens = LiveTokens(stores.sessions, parts.tokens, parts.clock)
        return Flows(
            self._metadata(),
            live.keys,
            Authorize(services, directory, browser_login, stores.consents, next_step),
            Consent(services, browser_login, stores.sessions, next_step),
            Callback(services, upstream_login, next_step),
            self._account(services, upstream_login, browser_login, directory),
            SignOut(browser_login, stores.browsers, parts.audit),
            self._token_endpoint(authentication),
            self._registration(),
            Revocation(
                authentication,
                stores.sessions,
                stores.refresh_tokens,
                parts.termination,
                parts.tokens,
                parts.audit,
                parts.clock,
            ),
            Introspection(
                settings.issuer,
                authentication,
                live_tokens,
                stores.sessions,
                stores.refresh_tokens,
                parts.clock,
            ),
            Userinfo(live_tokens),
        )

    def _token_endpoint(self, authentication: ClientAuthentication) -> TokenEndpoint:
        settings, live, stores, parts = self._settings, self._live, self._stores, self._parts
        return TokenEndpoint(
            authentication,
            stores.registered,
            GrantStores(stores.codes, stores.refresh_tokens, stores.sessions),
            parts.session_health,
            parts.termination,
            TokenIssuing(
                parts.tokens,
                IdTokens(settings.issuer, live.keys),
                settings.lifetimes,
                parts.clock,
                new_handle,
            ),
            live.resources,
            parts.audit,
        )

    def _account(
        self,
        services: SignInServices,
        upstream_login: UpstreamLogin,
        browser_login: BrowserLogin,
        directory: ClientDirectory,
    ) -> AccountFlows:
        lifetimes, stores, parts = self._settings.lifetimes, self._stores, self._parts
        subjects = ConnectSubjects(parts.connect_links, stores.sessions, services, directory)
        return AccountFlows(
            Connect(
                services,
                upstream_login,
                browser_login,
                subjects,
                parts.connect_links,
                stores.users,
                stores.connected_accounts,
                session_seconds=lifetimes.browser_session,
            ),
            ConnectionsPage(
                stores.overview,
                browser_login,
                stores.browsers,
                subjects,
                parts.connect_links,
                parts.termination,
                self._live.resources,
                self._live.upstreams,
                parts.audit,
                parts.clock,
                absolute_seconds=lifetimes.refresh_token_absolute,
            ),
            AccountSignIn(
                services,
                upstream_login,
                stores.users,
                stores.connected_accounts,
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

    def clients(self) -> tuple[ClientDirectory, ClientAuthentication]:
        settings, limits = self._settings, self._settings.limits
        loopback, documents = settings.on_loopback, settings.clients.metadata_documents
        factor = sources_of(self._settings).factor
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
            self._stores.registered,
            metadata_documents if documents.enabled else None,
            self._stores.sessions,
        )
        assertions = ClientAssertions(
            settings.issuer, web, self._stores.used_assertions, self._parts.clock, loopback=loopback
        )
        return directory, ClientAuthentication(directory, assertions)

    def _registration(self) -> Registration | None:
        if not self._settings.clients.registration.enabled:
            return None
        limits = self._settings.limits
        return Registration(
            self._stores.registered,
            RateLimit(
                "registrations",
                limits.registrations_per_source_per_minute * sources_of(self._settings).factor,
                60,
            ),
            SharedRateLimit("registrations", limits.registrations_per_minute, 60),
            self._parts.audit,
            self._parts.clock,
            new_handle,
            max_unused=limits.unused_registrations,
        )
