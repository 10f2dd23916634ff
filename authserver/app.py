"""Puts an authserver together from its settings; the only place that builds collaborators."""

from aiohttp import web

from authserver.audit import Audit
from authserver.clients.assertions import ClientAssertions
from authserver.clients.directory import ClientDirectory
from authserver.clients.metadata_documents import MetadataDocuments
from authserver.clients.safe_fetch import SafeFetcher
from authserver.config.settings import Settings
from authserver.config.upstreams import AnyUpstream, OidcUpstream
from authserver.connections.refresh_claims import ClaimedRefresh
from authserver.connections.refresher import TokenRefresher
from authserver.connections.session_health import SessionHealth
from authserver.connections.termination import SessionTermination
from authserver.endpoints.introspection import TokenFacts
from authserver.endpoints.registration import Registration
from authserver.endpoints.revocation import Revocation
from authserver.endpoints.token_endpoint import TokenEndpoint
from authserver.handles import new_handle
from authserver.housekeeping import Housekeeping
from authserver.internal.listener import Internal, Timeouts
from authserver.internal.svid import SvidReader
from authserver.internal.token_exchange import Exchange
from authserver.internal.token_limits import TokenLimits
from authserver.internal.workload_policy import WorkloadPolicy
from authserver.listener_tls import INTERNAL, own_names
from authserver.metrics import Metrics
from authserver.oauth.resources import ResourceMap
from authserver.public.client_ip import Sources
from authserver.public.listener import Flows, Public
from authserver.public.pages import Pages
from authserver.public.rate_limits import Throttling
from authserver.rate_limit import RateLimit
from authserver.sign_in.authorize import Authorize
from authserver.sign_in.browser_session import BrowserLogin
from authserver.sign_in.callback import Callback
from authserver.sign_in.consent import Consent
from authserver.sign_in.next_step import NextStep
from authserver.sign_in.upstream_login import UpstreamLogin
from authserver.storage.authorization_codes import AuthorizationCodes
from authserver.storage.browser_sessions import BrowserSessions
from authserver.storage.clients import Clients
from authserver.storage.completed_sign_ins import SignIns
from authserver.storage.connections import Connections
from authserver.storage.consents import Consents
from authserver.storage.contract import Database, StorageOpenError, StorageUnavailable
from authserver.storage.expiry import Expiry
from authserver.storage.key_rotation import KeyRotation
from authserver.storage.leases import Leases
from authserver.storage.missing_upstreams import MissingUpstreams
from authserver.storage.orphaned_owners import OrphanedOwners
from authserver.storage.pending_sign_ins import PendingSignIns
from authserver.storage.refresh_tokens import RefreshTokens
from authserver.storage.sessions import Sessions
from authserver.storage.used_assertions import UsedAssertions
from authserver.storage.users import Users
from authserver.tokens.access_tokens import AccessTokens
from authserver.tokens.id_tokens import IdTokens
from authserver.tokens.signing_keys import SigningKeys
from authserver.upstream.contract import Upstream
from authserver.upstream.http_client import UpstreamHttp
from authserver.upstream.oauth2 import OAuth2
from authserver.upstream.oidc import Oidc
from chassis.clock import Clock
from chassis.connection_limits import ConnectionLimits
from chassis.logs import Log
from chassis.probes import Readiness, new_registry
from chassis.process import ConfigProblem, ConfigurationError
from chassis.tls.self_handshake import Certificate

_log = Log("wiring")

_INTERNAL_TIMEOUTS = Timeouts()


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
    ) -> None:
        self._settings, self._clock = settings, clock
        self.registry, self.readiness = new_registry(), Readiness("listening")
        self._metrics = Metrics(self.registry)

        keyring = settings.keyring()
        self._keys = SigningKeys([key.signing_key() for key in settings.signing_keys])
        self._resources = ResourceMap(entry.entry() for entry in settings.resources)
        self._http = http
        self._upstreams: dict[str, Upstream] = {}
        self._built: dict[str, tuple[AnyUpstream, str | None]] = {}
        self._put_upstreams(settings)
        self._workload_policy = WorkloadPolicy(
            settings.allowed_workloads, settings.denied_certificates
        )
        self._keyring, self._key_rotation = keyring, KeyRotation(database)
        self._svids = SvidReader(
            settings.trust_domain,
            max_lifetime=settings.lifetimes.workload_certificate,
            own_names=own_names(settings.listeners.internal),
        )

        self._registered = Clients(database)
        self._pending_sign_ins = PendingSignIns(database, keyring)
        self._sessions, self._codes = Sessions(database), AuthorizationCodes(database)
        self._refresh_tokens = RefreshTokens(database, keyring)
        self._connections = Connections(database, keyring)
        self._consents, self._browsers = Consents(database), BrowserSessions(database)
        self._sign_ins = SignIns(database, self._sessions, self._codes, self._connections)

        self._audit = Audit(audit_key)
        self._clients = self._directory(database)
        self._tokens = AccessTokens(settings.issuer, self._keys, settings.lifetimes.access_token)
        self._termination = SessionTermination(
            self._sessions, self._connections, self._upstreams, self._audit, clock
        )
        claimed_refresh = ClaimedRefresh(
            self._connections, self._upstreams, self._metrics, clock, new_handle
        )
        self._refresher = TokenRefresher(claimed_refresh, clock)
        self._missing_upstreams = MissingUpstreams(database)
        self._session_health = SessionHealth(
            self._connections, Users(database), self._missing_upstreams, self._upstreams, clock
        )
        self.housekeeping = Housekeeping(
            Leases(database),
            Expiry(database),
            OrphanedOwners(database),
            self._missing_upstreams,
            self._resources,
            self._upstreams,
            self._sessions,
            self._connections,
            self._termination,
            self._metrics,
            clock,
            replica=new_handle(),
        )

    async def reload(self, settings: Settings) -> None:
        """Put what may change without a restart into force, all of it or nothing."""
        keyring = settings.keyring()
        keys = [key.signing_key() for key in settings.signing_keys]
        try:
            await self._key_rotation.check(keyring)
        except StorageOpenError as unusable:
            raise ConfigurationError([ConfigProblem("encryptionKeys", str(unusable))]) from None
        except StorageUnavailable:
            raise ConfigurationError([ConfigProblem("encryptionKeys", "storage is down")]) from None
        self._keyring.replace(keyring)
        if not self._keys.replace(keys, self._clock()):
            _log.warning("signing_key_never_announced")
        self._resources.replace(entry.entry() for entry in settings.resources)
        self._put_upstreams(settings)
        self._workload_policy.replace(settings.allowed_workloads, settings.denied_certificates)

    def _put_upstreams(self, settings: Settings) -> None:
        """Put these upstreams in force; an unchanged one goes on with what it has learnt."""
        built = {entry.name: (entry, entry.client_secret()) for entry in settings.upstreams}
        for name in self._upstreams.keys() - built.keys():
            del self._upstreams[name]
        for name, how in built.items():
            if self._built.get(name) != how:
                self._upstreams[name] = _upstream(how[0], self._http, self._clock)
        self._built = built

    def reloaded(self, taken: bool) -> None:
        self._metrics.reloads.labels("taken" if taken else "refused").inc()

    def credential_reloaded(self, place: str, certificate: Certificate | None) -> None:
        """A listener's changed files took over with this certificate, or were refused."""
        self._metrics.credential_reloads.labels("ok" if certificate else "failed").inc()
        if certificate is not None and place == INTERNAL:
            self._svids.set_own_names(certificate.dns_names)

    def expired_cas(self, count: int) -> None:
        """How many CAs of the bundle in use have expired and vouch for nobody any more."""
        self._metrics.expired_cas.set(count)

    def public(self) -> web.Application:
        """The internet-facing listener's application."""
        return Public(
            self._settings.issuer,
            self._flows(),
            self._keys,
            self._resources,
            self._upstreams,
            Pages(self._settings.issuer, self._settings.pages.style()),
            self._throttling(),
            self._metrics,
            new_handle,
            documents=self._settings.clients.metadata_documents.enabled,
            session_seconds=self._settings.lifetimes.browser_session,
        ).application()

    def _throttling(self) -> Throttling:
        listener = self._settings.listeners.public
        sources = Sources(listener.trusted_proxies, behind_proxy=listener.behind_tls_proxy)
        return Throttling(sources, self._settings.limits, self._clock)

    def connection_limits(self) -> ConnectionLimits:
        """How the public listener treats connections; behind a proxy all have one source."""
        limits, listener = self._settings.limits, self._settings.listeners.public
        proxied = listener.behind_tls_proxy or bool(listener.trusted_proxies)
        return ConnectionLimits(
            max_per_source=None if proxied else limits.connections_per_source,
            max_total=limits.connections,
        )

    def internal(self, timeouts: Timeouts = _INTERNAL_TIMEOUTS) -> Internal:
        """The mTLS listener's handler."""
        return Internal(
            Exchange(
                self._tokens,
                self._resources,
                self._connections,
                self._sessions,
                self._refresher,
                TokenLimits.of(self._settings.limits),
                self._clock,
            ),
            self._svids,
            self._workload_policy,
            self._audit,
            self._metrics,
            self._clock,
            timeouts,
        )

    async def drain(self) -> None:
        """Let refreshes and revocations under way come to their durable end."""
        await self._refresher.drain()
        await self._termination.drain()
        await self.housekeeping.drain()

    def _flows(self) -> Flows:
        settings, clock = self._settings, self._clock
        issuer, lifetimes = settings.issuer, settings.lifetimes
        upstream_login = UpstreamLogin(
            issuer, self._upstreams, self._pending_sign_ins, clock, new_handle
        )
        visitors = BrowserLogin(self._browsers, self._connections, self._upstreams, clock)
        next_step = NextStep(
            issuer, upstream_login, self._resources, self._sign_ins, lifetimes, clock, new_handle
        )
        return Flows(
            Authorize(
                self._clients,
                self._resources,
                self._upstreams,
                self._pending_sign_ins,
                visitors,
                self._consents,
                next_step,
                clock,
                new_handle,
            ),
            Consent(self._pending_sign_ins, visitors, self._resources, next_step, clock),
            Callback(upstream_login, self._pending_sign_ins, next_step, clock),
            TokenEndpoint(
                self._clients,
                self._registered,
                self._codes,
                self._refresh_tokens,
                self._sessions,
                self._session_health,
                self._termination,
                self._tokens,
                IdTokens(issuer, self._keys),
                self._resources,
                lifetimes,
                self._audit,
                clock,
                new_handle,
            ),
            self._registration(),
            Revocation(
                self._clients,
                self._sessions,
                self._refresh_tokens,
                self._termination,
                self._tokens,
                self._audit,
                clock,
            ),
            TokenFacts(
                issuer, self._clients, self._sessions, self._refresh_tokens, self._tokens, clock
            ),
        )

    def _directory(self, database: Database) -> ClientDirectory:
        settings, limits = self._settings, self._settings.limits
        loopback, documents = settings.on_loopback, settings.clients.metadata_documents
        web = SafeFetcher(loopback=loopback, denied=documents.denied_networks)
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
            max_unused=limits.unused_registrations,
        )


def _upstream(settings: AnyUpstream, http: UpstreamHttp, clock: Clock) -> Upstream:
    if isinstance(settings, OidcUpstream):
        return Oidc(settings, http, clock)
    return OAuth2(settings, http, clock)
