"""Puts an authserver together from its settings; the only place that builds collaborators."""

from aiohttp import web

from authserver.access_tokens import AccessTokens
from authserver.audit import Audit
from authserver.authorize import Authorize
from authserver.callback import Callback
from authserver.client_assertions import ClientAssertions
from authserver.clients import ClientDirectory
from authserver.consent import Consent
from authserver.endings import Endings
from authserver.exchange import Exchange
from authserver.handles import new_handle
from authserver.housekeeping import Housekeeping
from authserver.internal import Internal
from authserver.keys import SigningKeys, load_signing_key
from authserver.legs import Legs
from authserver.limits import RateLimit
from authserver.metadata_documents import MetadataDocuments
from authserver.metrics import Metrics
from authserver.onward import Onward
from authserver.open_web import OpenWeb
from authserver.public import Flows, Public
from authserver.refreshing import Refreshing
from authserver.registration import Registration
from authserver.resources import Resource, ResourceMap
from authserver.revocation import Revocation
from authserver.settings import AnyUpstream, OidcUpstream, Settings
from authserver.signed_in import Visitors
from authserver.storage.assertions import UsedAssertions
from authserver.storage.browser_sessions import BrowserSessions
from authserver.storage.clients import Clients
from authserver.storage.connections import Connections
from authserver.storage.consents import Consents
from authserver.storage.database import Database
from authserver.storage.sealing import Keyring
from authserver.storage.sessions import Sessions
from authserver.storage.sign_ins import SignIns
from authserver.storage.sweeping import Sweeper
from authserver.storage.transactions import Transactions
from authserver.svid import SvidReader, dns_names
from authserver.token_endpoint import TokenEndpoint
from authserver.upstream.contract import Upstream
from authserver.upstream.oauth2 import OAuth2
from authserver.upstream.oidc import Oidc
from authserver.upstream.transport import UpstreamHttp
from chassis.clock import Clock
from chassis.probes import Readiness, new_registry


class Authserver:
    """Everything a running authserver is made of, short of sockets."""

    def __init__(
        self, settings: Settings, database: Database, http: UpstreamHttp, clock: Clock
    ) -> None:
        self._settings, self._clock = settings, clock
        self.registry, self.readiness = new_registry(), Readiness("listening")
        self._metrics = Metrics(self.registry)

        keyring = Keyring([(key.id, key.key()) for key in settings.encryption_keys])
        self._keys = SigningKeys(
            [load_signing_key(key.file, key.algorithm) for key in settings.signing_keys]
        )
        self._resources = ResourceMap(
            Resource(entry.resource, entry.workload.workload(), entry.upstreams, entry.scopes)
            for entry in settings.resources
        )
        self._upstreams = {
            entry.name: _upstream(entry, http, clock) for entry in settings.upstreams
        }

        self._registered = Clients(database)
        self._transactions = Transactions(database, keyring)
        self._sessions = Sessions(database, keyring)
        self._connections = Connections(database, keyring)
        self._consents, self._browsers = Consents(database), BrowserSessions(database)
        self._sign_ins = SignIns(
            database, self._sessions, self._connections, self._consents, self._browsers
        )

        self._audit = Audit(keyring.log_secret)
        self._clients = self._directory(database)
        self._tokens = AccessTokens(settings.issuer, self._keys, settings.lifetimes.access_token)
        self._endings = Endings(
            self._sessions, self._connections, self._consents, self._upstreams, clock
        )
        self._refreshing = Refreshing(
            self._connections, self._upstreams, self._metrics, clock, new_handle
        )
        self.housekeeping = Housekeeping(
            Sweeper(database),
            self._sessions,
            self._connections,
            self._endings,
            self._metrics,
            clock,
        )

    def public(self) -> web.Application:
        """The internet-facing listener's application."""
        offered = {entry.name: entry for entry in self._settings.upstreams}
        return Public(
            self._settings.issuer,
            self._flows(),
            self._keys,
            self._resources,
            offered,
            self._metrics,
            new_handle,
            documents=self._settings.clients.metadata_documents.enabled,
            session_seconds=self._settings.lifetimes.browser_session,
        ).application()

    def internal(self) -> Internal:
        """The mTLS listener's handler."""
        settings, limits = self._settings, self._settings.limits
        releases = limits.releases_per_workload_per_second
        own_certificate = settings.listeners.internal.cert_file.read_bytes()
        return Internal(
            Exchange(
                self._tokens,
                self._resources,
                self._connections,
                self._refreshing,
                RateLimit("rejected_tokens", 1, 10),
                self._audit,
                self._clock,
            ),
            SvidReader(
                settings.trust_domain,
                longest_life=settings.lifetimes.workload_certificate,
                own_names=dns_names(own_certificate),
            ),
            settings.allowed_workloads,
            settings.denied_certificates,
            RateLimit("releases", releases, 1, burst=2 * releases),
            RateLimit("failed_tokens", limits.failed_tokens_per_workload_per_minute, 60),
            self._audit,
            self._metrics,
            self._clock,
            new_handle,
        )

    async def settle(self) -> None:
        """Let refreshes and revocations under way come to their durable end."""
        await self._refreshing.settle()
        await self._endings.settle()

    def _flows(self) -> Flows:
        settings, clock = self._settings, self._clock
        issuer, lifetimes = settings.issuer, settings.lifetimes
        legs = Legs(issuer, self._upstreams, self._transactions, clock, new_handle)
        visitors = Visitors(self._browsers, self._connections, self._upstreams, clock)
        onward = Onward(issuer, legs, self._resources, self._sign_ins, lifetimes, clock, new_handle)
        return Flows(
            Authorize(
                self._clients,
                self._resources,
                self._upstreams,
                self._transactions,
                visitors,
                self._consents,
                onward,
                clock,
                new_handle,
            ),
            Consent(self._transactions, visitors, self._resources, onward, clock),
            Callback(legs, self._transactions, onward, clock),
            TokenEndpoint(
                self._clients,
                self._registered,
                self._sessions,
                self._endings,
                self._tokens,
                self._resources,
                lifetimes,
                clock,
                new_handle,
            ),
            self._registration(),
            Revocation(self._clients, self._sessions, self._endings, self._tokens, clock),
        )

    def _directory(self, database: Database) -> ClientDirectory:
        settings, limits = self._settings, self._settings.limits
        loopback, documents = settings.on_loopback, settings.clients.metadata_documents
        web = OpenWeb(loopback=loopback, denied=documents.denied_networks)
        found = MetadataDocuments(
            web,
            loopback=loopback,
            per_host=RateLimit("documents", limits.metadata_documents_per_host_per_minute, 60),
            overall=RateLimit("documents", limits.metadata_documents_per_minute, 60),
        )
        return ClientDirectory(
            settings.clients.static,
            self._registered,
            found if documents.enabled else None,
            ClientAssertions(
                settings.issuer, web, UsedAssertions(database), self._clock, loopback=loopback
            ),
        )

    def _registration(self) -> Registration | None:
        if not self._settings.clients.registration.enabled:
            return None
        limits = self._settings.limits
        return Registration(
            self._registered,
            RateLimit("registrations", limits.registrations_per_source_per_minute, 60),
            RateLimit("registrations", limits.registrations_per_minute, 60),
            self._clock,
            new_handle,
            most_unused=limits.unused_registrations,
        )


def _upstream(settings: AnyUpstream, http: UpstreamHttp, clock: Clock) -> Upstream:
    if isinstance(settings, OidcUpstream):
        return Oidc(settings, http, clock)
    return OAuth2(settings, http, clock)
