"""`python -m authserver --config FILE [--check]`: builds everything and runs it; the only wiring."""

import argparse
import asyncio
import contextlib
import ssl
import sys
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from authserver import svid
from authserver.access_tokens import AccessTokens
from authserver.audit import Audit
from authserver.authorize import Authorize
from authserver.callback import Callback
from authserver.clients import ClientDirectory
from authserver.configuration import load
from authserver.consent import Consent
from authserver.endings import Endings
from authserver.exchange import Exchange
from authserver.handles import new_handle
from authserver.housekeeping import Housekeeping
from authserver.internal import Internal
from authserver.keys import SigningKeys, load_signing_key
from authserver.legs import Legs
from authserver.limits import RateLimit
from authserver.metrics import Metrics
from authserver.public import Flows, Public
from authserver.refreshing import Refreshing
from authserver.registration import Registration
from authserver.resources import Resource, ResourceMap
from authserver.revocation import Revocation
from authserver.settings import OidcUpstream, Settings
from authserver.storage.clients import Clients
from authserver.storage.connections import Connections
from authserver.storage.database import Database, StorageUnusable, open_database
from authserver.storage.sealing import Keyring
from authserver.storage.sessions import Sessions
from authserver.storage.sign_ins import SignIns
from authserver.storage.sweeping import Sweeper
from authserver.storage.transactions import Transactions
from authserver.token_endpoint import TokenEndpoint
from authserver.upstream.contract import Upstream
from authserver.upstream.oauth2 import OAuth2
from authserver.upstream.oidc import Oidc
from authserver.upstream.transport import UpstreamHttp
from chassis import clock, credential, logs, run
from chassis.probes import Readiness, new_registry, ops_handler

_log = logs.Log("main")

_DRAIN_SECONDS: Final = 20.0


def main() -> None:
    arguments = _arguments()
    logs.configure("authserver")
    if arguments.check:
        sys.exit(_check(arguments.config))
    run.main(lambda: _serve(arguments.config), loop=uvloop.new_event_loop)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m authserver", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    return parser.parse_args()


def _check(config: Path) -> int:
    """Every fault on a line of its own, for a person; the exit code."""
    try:
        load(config)
    except run.BadConfiguration as bad:
        for fault in bad.faults:
            print(fault, file=sys.stderr)  # noqa: T201 - this is the command's output
        return run.EXIT_BAD_CONFIGURATION
    print(f"{config}: no faults")  # noqa: T201 - this is the command's output
    return 0


async def _serve(config: Path) -> None:
    settings = load(config)
    logs.configure("authserver", settings.log_level)
    if settings.clients.metadata_documents.enabled:
        _log.warning("not_available_yet", member="clients.metadataDocuments")
    async with contextlib.AsyncExitStack() as stack:
        internal_tls, public_tls = _tls(settings)
        for watched in filter(None, (internal_tls, public_tls)):
            await stack.enter_async_context(_background(watched.watch()))
        try:
            database = await open_database(settings.storage.url)
        except StorageUnusable as unusable:
            raise run.StartFailed(str(unusable)) from None
        stack.push_async_callback(database.close)
        http = await stack.enter_async_context(UpstreamHttp())
        server = _Server(settings, database, http)
        stack.push_async_callback(server.settle)
        await stack.enter_async_context(_background(server.housekeeping.run()))
        listeners = settings.listeners
        await run.serve(
            [
                run.Listener(
                    "public",
                    listeners.public.host,
                    listeners.public.port,
                    server.public,
                    public_tls.context if public_tls else None,
                ),
                run.Listener(
                    "internal",
                    listeners.internal.host,
                    listeners.internal.port,
                    web.Server(server.internal),
                    internal_tls.context,
                ),
            ],
            ops=run.Listener(
                "ops",
                listeners.ops.host,
                listeners.ops.port,
                web.Server(ops_handler(server.readiness, server.registry)),
            ),
            readiness=server.readiness,
            drain_seconds=_DRAIN_SECONDS,
        )


@contextlib.asynccontextmanager
async def _background(work):  # type: ignore[no-untyped-def]
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _tls(settings: Settings) -> tuple[credential.Reloading, credential.Reloading | None]:
    """The internal listener's reloadable context, and the public one's where it ends TLS itself."""
    internal, tls = settings.listeners.internal, settings.listeners.public.tls
    pair = credential.KeyPair(internal.cert_file, internal.key_file)

    def build_internal() -> tuple[ssl.SSLContext, credential.Certificate]:
        context = credential.mutual_server_context(pair, internal.client_ca_file, _refused_peer)
        return context, credential.prove(pair, as_client=False)

    try:
        mutual = credential.Reloading(
            "internal",
            build_internal,
            (internal.cert_file, internal.key_file, internal.client_ca_file),
        )
        if tls is None:
            return mutual, None
        public_pair = credential.KeyPair(tls.cert_file, tls.key_file)

        def build_public() -> tuple[ssl.SSLContext, credential.Certificate]:
            context = credential.server_context(public_pair)
            return context, credential.prove(public_pair, as_client=False)

        files = (tls.cert_file, tls.key_file)
        return mutual, credential.Reloading("public", build_public, files)
    except credential.CredentialFault as fault:
        raise run.StartFailed(str(fault)) from None


def _refused_peer(refused: ssl.SSLError) -> None:
    reason = getattr(refused, "verify_message", None) or refused.reason
    _log.warning("handshake_refused", reason=reason)


class _Server:
    """Everything a running authserver is made of."""

    def __init__(self, settings: Settings, database: Database, http: UpstreamHttp) -> None:
        now = clock.wall
        self.registry = new_registry()
        self.readiness = Readiness("listening")
        metrics = Metrics(self.registry)
        keyring = Keyring([(key.id, key.key()) for key in settings.encryption_keys])
        keys = SigningKeys(
            [load_signing_key(key.file, key.algorithm) for key in settings.signing_keys]
        )
        resources = ResourceMap(
            Resource(entry.resource, entry.workload.workload(), entry.upstreams, entry.scopes)
            for entry in settings.resources
        )
        upstreams = {entry.name: _upstream(entry, http) for entry in settings.upstreams}

        registered = Clients(database)
        transactions = Transactions(database, keyring)
        sessions = Sessions(database, keyring)
        connections = Connections(database, keyring)
        directory = ClientDirectory(settings.clients.static, registered)
        tokens = AccessTokens(settings.issuer, keys, settings.lifetimes.access_token)
        endings = Endings(sessions, connections, lambda: upstreams, now)
        legs = Legs(settings.issuer, lambda: upstreams, transactions, now, new_handle)
        limits = settings.limits
        flows = Flows(
            Authorize(directory, lambda: resources, transactions, now, new_handle),
            Consent(transactions, legs, now),
            Callback(
                settings.issuer,
                legs,
                lambda: resources,
                transactions,
                SignIns(database, sessions, connections),
                now,
                new_handle,
                code_seconds=settings.lifetimes.authorization_code,
            ),
            TokenEndpoint(
                directory,
                registered,
                sessions,
                endings,
                tokens,
                lambda: resources,
                settings.lifetimes,
                now,
                new_handle,
            ),
            Registration(
                registered,
                RateLimit("registrations", limits.registrations_per_source_per_minute, 60),
                now,
                new_handle,
            )
            if settings.clients.registration.enabled
            else None,
            Revocation(directory, sessions, endings, tokens, now),
        )
        self.public = Public(
            settings.issuer,
            flows,
            keys,
            lambda: resources,
            lambda: {entry.name: entry for entry in settings.upstreams},
            metrics,
            new_handle,
        ).application()
        self._refreshing = Refreshing(connections, lambda: upstreams, metrics, now, new_handle)
        self._endings = endings
        audit = Audit(lambda: keyring.log_secret)
        releases = limits.releases_per_workload_per_second
        self.internal = Internal(
            Exchange(
                tokens,
                lambda: resources,
                connections,
                self._refreshing,
                RateLimit("rejected_tokens", 1, 10),
                audit,
                now,
            ),
            svid.SvidReader(
                settings.trust_domain,
                longest_life=settings.lifetimes.workload_certificate,
                own_names=svid.dns_names(settings.listeners.internal.cert_file.read_bytes()),
            ),
            lambda: (settings.allowed_workloads, settings.denied_certificates),
            RateLimit("releases", releases, 1, burst=2 * releases),
            RateLimit("failed_tokens", limits.failed_tokens_per_workload_per_minute, 60),
            audit,
            metrics,
            now,
            new_handle,
        )
        self.housekeeping = Housekeeping(
            Sweeper(database), sessions, connections, endings, metrics, now
        )

    async def settle(self) -> None:
        """Let refreshes and revocations under way come to their durable end."""
        await self._refreshing.settle()
        await self._endings.settle()


def _upstream(settings: object, http: UpstreamHttp) -> Upstream:
    if isinstance(settings, OidcUpstream):
        return Oidc(settings, http, clock.wall)
    return OAuth2(settings, http, clock.wall)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
