"""Puts a reloaded configuration into force, whole or not at all."""

from authserver.config.settings import Settings
from authserver.config.upstreams import AnyUpstream, OidcUpstream
from authserver.connections.registration_binding import RegistrationBinding
from authserver.internal.workload_policy import WorkloadPolicy
from authserver.oauth.resources import ResourceMap
from authserver.storage.absent_registrations import AbsentRegistrations
from authserver.storage.contract import Database, StorageOpenError, StorageUnavailable
from authserver.storage.key_rotation import KeyRotation
from authserver.storage.keyring import Keyring
from authserver.tokens.signing_keys import SigningKeys
from authserver.upstream.contract import Upstream
from authserver.upstream.http_client import UpstreamHttp
from authserver.upstream.oauth2 import OAuth2
from authserver.upstream.oidc import Oidc
from chassis.clock import Clock
from chassis.logs import Log
from chassis.process import ConfigProblem, ConfigurationError

_log = Log("live_config")


class LiveConfig:
    """What a reload may change. The flows hold these objects, and each is changed in place."""

    def __init__(
        self, settings: Settings, database: Database, http: UpstreamHttp, clock: Clock
    ) -> None:
        self._http, self._clock = http, clock
        self._key_rotation = KeyRotation(database)
        self.keyring: Keyring = settings.keyring()
        self.keys = SigningKeys([key.signing_key() for key in settings.signing_keys])
        self.resources = ResourceMap(entry.entry() for entry in settings.resources)
        self.upstreams: dict[str, Upstream] = {}
        self._built: dict[str, tuple[AnyUpstream, tuple[str | None, ...]]] = {}
        self.absent_registrations = AbsentRegistrations(database)
        self.binding = RegistrationBinding(self.upstreams, self.absent_registrations, clock)
        self._put_upstreams(settings)
        self.workload_policy = WorkloadPolicy(
            settings.allowed_workloads, settings.denied_certificates
        )

    async def replace(self, settings: Settings) -> None:
        """Put what may change without a restart into force. Raises ConfigurationError."""
        keyring = settings.keyring()
        keys = [key.signing_key() for key in settings.signing_keys]
        try:
            await self._key_rotation.check(keyring)
        except StorageOpenError as unusable:
            raise ConfigurationError([ConfigProblem("encryptionKeys", str(unusable))]) from None
        except StorageUnavailable:
            raise ConfigurationError([ConfigProblem("encryptionKeys", "storage is down")]) from None
        self.keyring.replace(keyring)
        if not self.keys.replace(keys, self._clock()):
            _log.warning("signing_key_never_announced")
        self.resources.replace(entry.entry() for entry in settings.resources)
        self._put_upstreams(settings)
        self.workload_policy.replace(settings.allowed_workloads, settings.denied_certificates)

    def _put_upstreams(self, settings: Settings) -> None:
        """Put these upstreams into force; an unchanged one keeps what it has learnt."""
        built = {entry.name: (entry, entry.secrets()) for entry in settings.upstreams}
        for name in self.upstreams.keys() - built.keys():
            del self.upstreams[name]
        for name, how in built.items():
            if self._built.get(name) != how:
                self.upstreams[name] = _upstream(how[0], self._http, self._clock)
        self._built = built


def _upstream(settings: AnyUpstream, http: UpstreamHttp, clock: Clock) -> Upstream:
    if isinstance(settings, OidcUpstream):
        return Oidc(settings, http, clock)
    return OAuth2(settings, http, clock)
