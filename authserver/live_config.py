"""Puts a reloaded configuration into force, whole or not at all."""

from msgspec.structs import replace

from authserver.config.exchanged_upstreams import ConfiguredUpstream, ExchangedUpstream
from authserver.config.resource_files import ResourceFiles
from authserver.config.settings import Settings
from authserver.config.upstreams import OidcUpstream
from authserver.connections.registration_binding import RegistrationBinding
from authserver.internal.answered_apis import AnsweredApis
from authserver.internal.workload_policy import WorkloadPolicy
from authserver.oauth.resources import Resource, ResourceMap
from authserver.storage.absent_registrations import AbsentRegistrations
from authserver.storage.contract import Database, StorageOpenError
from authserver.storage.key_rotation import KeyRotation
from authserver.storage.keyring import Keyring
from authserver.tokens.signing_keys import SigningKeys
from authserver.upstream.contract import Upstream
from authserver.upstream.exchanged import Exchanged
from authserver.upstream.http_client import UpstreamHttp
from authserver.upstream.oauth2 import OAuth2
from authserver.upstream.oidc import Oidc
from chassis.clock import Clock
from chassis.logs import Log
from chassis.process import ConfigProblem, ConfigurationError

_log = Log("live_config")

# What an upstream is made of: its settings, those of the upstream whose tokens it exchanges, and
# the secrets in their files.
_Source = tuple[tuple[ConfiguredUpstream, ...], tuple[str | None, ...]]
_Upstreams = dict[str, tuple[_Source, Upstream]]


class LiveConfig:
    """What a reload may change. The flows hold these objects, and each is changed in place."""

    def __init__(
        self, settings: Settings, database: Database, http: UpstreamHttp, clock: Clock
    ) -> None:
        self._http, self._clock = http, clock
        self._key_rotation = KeyRotation(database)
        self.keyring: Keyring = settings.keyring()
        self.keys = SigningKeys([key.signing_key() for key in settings.signing_keys])
        self._settings = settings
        self.resource_files = ResourceFiles(settings.resources_folder)
        self.resources = ResourceMap(self._all_resources(settings))
        self.upstreams: dict[str, Upstream] = {}
        self._sources: dict[str, _Source] = {}
        self.absent_registrations = AbsentRegistrations(database, self.keyring)
        self.binding = RegistrationBinding(self.upstreams, self.absent_registrations, clock)
        self.apis = AnsweredApis(settings.upstreams)
        self._put_upstreams(self._built(settings))
        self.workload_policy = WorkloadPolicy(
            settings.allowed_workloads,
            settings.denied_certificates,
            self.resource_files.denied_serials,
        )

    async def replace(self, settings: Settings) -> None:
        """Put what may change without a restart into force.

        Raises ConfigurationError, OSError or ValueError, StorageUnavailable where nobody can tell
        now whether the keys serve, and has changed nothing then.
        """
        keyring = settings.keyring()
        keys = [key.signing_key() for key in settings.signing_keys]
        resources = [entry.entry() for entry in settings.resources]
        ResourceMap(resources)
        upstreams, apis = self._built(settings), AnsweredApis(settings.upstreams)
        try:
            await self._key_rotation.check(keyring)
        except StorageOpenError as unusable:
            raise ConfigurationError([ConfigProblem("encryptionKeys", str(unusable))]) from None
        # Nothing fails from here on.
        self.keyring.replace(keyring)
        if not self.keys.replace(keys, self._clock()):
            _log.warning("signing_key_never_announced")
        if settings.resources_folder != self._settings.resources_folder:
            self.resource_files = ResourceFiles(settings.resources_folder)
        self._settings = settings
        self.resources.replace(self._all_resources(settings))
        self.apis.replace(apis)
        self._put_upstreams(upstreams)
        self._put_policy()

    def poll_resources(self) -> bool:
        """Put changed files of `resourcesDir` into force; whether there were any."""
        if not self.resource_files.poll():
            return False
        self.resources.replace(self._all_resources(self._settings))
        self._put_policy()
        return True

    def _put_policy(self) -> None:
        settings = self._settings
        self.workload_policy.replace(
            settings.allowed_workloads,
            settings.denied_certificates,
            self.resource_files.denied_serials,
        )

    def _all_resources(self, settings: Settings) -> list[Resource]:
        configured = [entry.entry() for entry in settings.resources]
        exchanged = frozenset(
            one.name for one in settings.upstreams if isinstance(one, ExchangedUpstream)
        )
        return [
            replace(one, exchanged=exchanged.intersection(one.upstreams))
            for one in (
                *configured,
                *self.resource_files.entries(configured, settings.upstreams),
            )
        ]

    def _built(self, settings: Settings) -> _Upstreams:
        """The upstreams of these settings; an unchanged one is kept, with what it has learnt."""
        built: _Upstreams = {}
        named = {entry.name: entry for entry in settings.upstreams}
        for name, entry in named.items():
            parent = (
                named[entry.exchange.upstream] if isinstance(entry, ExchangedUpstream) else None
            )
            entries = (entry,) if parent is None else (entry, parent)
            source = (entries, tuple(secret for one in entries for secret in one.secrets()))
            upstream = (
                self.upstreams[name]
                if self._sources.get(name) == source
                else _upstream(entry, parent, self._http, self._clock)
            )
            built[name] = (source, upstream)
        return built

    def _put_upstreams(self, built: _Upstreams) -> None:
        for name in self.upstreams.keys() - built.keys():
            del self.upstreams[name]
        self.upstreams.update({name: upstream for name, (_, upstream) in built.items()})
        self._sources = {name: source for name, (source, _) in built.items()}


def _upstream(
    settings: ConfiguredUpstream,
    parent: ConfiguredUpstream | None,
    http: UpstreamHttp,
    clock: Clock,
) -> Upstream:
    if isinstance(settings, ExchangedUpstream):
        # The loader has refused every other parent.
        assert parent is not None
        assert not isinstance(parent, ExchangedUpstream)
        return Exchanged(settings, parent, http, clock)
    if isinstance(settings, OidcUpstream):
        return Oidc(settings, http, clock)
    return OAuth2(settings, http, clock)
