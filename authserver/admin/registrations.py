"""Whether what a stored row was given to is configured now: our client at its upstream."""

from authserver.admin.opened import Opened
from authserver.live_config import LiveConfig
from authserver.storage.connection_rows import registration_of
from authserver.storage.contract import Row
from authserver.storage.records import ClientRegistration
from authserver.upstream.http_client import UpstreamHttp


class ConfiguredRegistrations:
    """The registrations of now, and former ones in their time."""

    def __init__(self, opened: Opened) -> None:
        live = LiveConfig(opened.settings, opened.database, UpstreamHttp(), opened.clock)
        self._named = live.binding.named()

    def have(self, row: Row) -> bool:
        """`row` has the columns that say who gave its tokens, and to whom."""
        registration = registration_of(row["authorization_server"], row["registered_client_id"])
        of_issuer = ClientRegistration(row["upstream_issuer"], "")
        return (row["upstream"], registration or of_issuer) in self._named
