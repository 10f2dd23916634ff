"""What revokes at upstreams, over a test's storage."""

from authserver.audit import Audit
from authserver.connections.registration_binding import RegistrationBinding
from authserver.connections.upstream_revocation import UpstreamRevoker
from authserver.metrics import Metrics
from authserver.storage.connections import Connections
from authserver.storage.contract import Database
from authserver.storage.keyring import Keyring
from authserver.storage.upstream_revocations import UpstreamRevocations
from chassis.clock import Clock
from chassis.probes import new_registry


def revoker(
    database: Database, keyring: Keyring, binding: RegistrationBinding, clock: Clock
) -> UpstreamRevoker:
    """One process's revoker, with metrics and a trail that nobody looks at."""
    return UpstreamRevoker(
        UpstreamRevocations(database, keyring),
        Connections(database, keyring),
        binding,
        Audit(b"k" * 32),
        Metrics(new_registry()),
        clock,
    )
