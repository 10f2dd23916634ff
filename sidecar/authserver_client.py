"""The authserver as this workload reaches it: mTLS with the credential of the moment."""

from typing import Final
from urllib.parse import urlsplit

from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from sidecar.client_credential import OwnCredential

_CONNECT_SECONDS: Final = 3.0


class AuthserverClient:
    """Connections to `url`; each purpose has its own, within its own limits."""

    def __init__(self, url: str, credential: OwnCredential, limits: Limits) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None  # the settings saw to it
        self._host = Host(parts.hostname, parts.port or 443)
        self._credential, self._limits = credential, limits
        self._client: Client | None = None
        self._generation = 0  # of the credential that the client's connections use

    def renew(self) -> Client | None:
        """The client to use now; None while this workload has no certificate.

        A replaced credential takes over at once. Requests under way end on the old connections.
        """
        context, generation = self._credential.context, self._credential.generation
        if self._client is None or self._generation != generation:
            self.close()
            if context is not None:
                self._client = Client(
                    self._host, context, limits=self._limits, connect_seconds=_CONNECT_SECONDS
                )
            self._generation = generation
        return self._client

    def close(self) -> None:
        """Close idle connections now, and the others after their request."""
        if self._client is not None:
            self._client.close()
        self._client = None
