"""The clients we know: configured, registered, or described by the document their id points to."""

from collections.abc import Iterable

from authserver.clients.metadata_documents import BadDocument, MetadataDocuments
from authserver.config.clients import StaticClient
from authserver.handles import hash_of
from authserver.oauth.errors import InvalidClient, TemporarilyUnavailable
from authserver.storage.clients import Clients as RegisteredClients
from authserver.storage.records import GRANT_TYPES, Client
from authserver.storage.sessions import Sessions
from authserver.upstream.contract import Unavailable
from chassis.secret_file import read_secret


class ClientDirectory:
    """Clients from the configuration first, then those that describe themselves."""

    def __init__(
        self,
        static: Iterable[StaticClient],
        registered: RegisteredClients,
        documents: MetadataDocuments | None,
        sessions: Sessions,
    ) -> None:
        self._static = {settings.client_id: _from_settings(settings) for settings in static}
        self._registered, self._documents = registered, documents
        self._sessions = sessions

    async def get(
        self, client_id: str, now: float, *, signed_in: bool = False, source: str = ""
    ) -> Client | None:
        """The client of this id; `signed_in` where it says that it holds something of ours.

        No document is fetched for one that says so and has no session here: anybody may say it.
        `source` is where the request came from, for counting.
        Raises ProtocolError where a document would say and cannot be had now.
        """
        if (configured := self._static.get(client_id)) is not None:
            return configured
        if not client_id.isprintable():
            return None  # PostgreSQL takes no NUL, and no database takes half a surrogate pair
        if self._documents is None or not self._documents.names(client_id):
            return await self._registered.get(client_id, now)
        known = self._documents.keeps(client_id) or await self._sessions.has_client(client_id)
        if signed_in and not known:
            return None
        try:
            return await self._documents.client(
                client_id, now, signed_in=signed_in, known=known, source=source
            )
        except BadDocument as bad:
            raise InvalidClient(f"document_{bad}") from None
        except Unavailable as failure:
            raise TemporarilyUnavailable(f"document_{failure}") from None

    async def name_of(self, client_id: str, now: float) -> str:
        """What to call a client on a page; nothing is fetched for it.

        A client that describes itself goes by the URL of its document, which is proven.
        """
        configured = self._static.get(client_id)
        known = configured or await self._registered.get(client_id, now)
        return known.name if known is not None else client_id

    def is_configured(self, client: Client) -> bool:
        """Whether an operator vouches for the client, and not only the client itself."""
        return client.client_id in self._static


def _from_settings(settings: StaticClient) -> Client:
    secret = None
    if settings.client_secret_file is not None:
        secret = read_secret(settings.client_secret_file)
    return Client(
        settings.client_id,
        settings.client_name or settings.client_id,
        settings.redirect_uris,
        (settings.token_endpoint_auth_method,),
        GRANT_TYPES,
        "web",
        hash_of(secret) if secret is not None else None,
        settings.jwks(),
        settings.jwks_uri,
    )
