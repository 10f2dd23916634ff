"""Client ID metadata documents: a client that is known by the URL of its own description.

Follows draft-ietf-oauth-client-id-metadata-document. A failure is never remembered; a document is
kept as long as its HTTP headers say, within our bounds, and a little longer for clients that are
signed in already while their host is down.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from authserver.clients.safe_fetch import Fetched, SafeFetcher, TooLarge
from authserver.oauth import redirect_uris
from authserver.oauth.errors import RateLimited
from authserver.oauth.parsing import Malformed, json_object
from authserver.rate_limit import RateLimit
from authserver.storage.records import GRANT_TYPES, Client
from authserver.upstream.contract import Unavailable
from authserver.values import Value

MAX_BYTES: Final = 5 * 1024
_MAX_URL_LENGTH: Final = 1024
_MAX_NAME_LENGTH: Final = 128
_MAX_REDIRECTS: Final = 50
_MAX_KEPT: Final = 1000
_DEFAULT_SECONDS: Final = 300
_MAX_SECONDS: Final = 86400
_METHODS: Final = ("none", "private_key_jwt")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_CLUSTER_SUFFIXES: Final = (
    ".local", ".localhost", ".internal", ".svc", ".home.arpa", ".lan", ".intranet",
)  # fmt: skip
_MAX_AGE: Final = re.compile(r"max-age=\"?([0-9]{1,9})", re.ASCII)


class BadDocument(Exception):
    """The URL or what it leads to describes no client; the text is a code for the log."""


class _Kept(Value, frozen=True):
    client: Client
    fresh_until: float
    usable_until: float


class FetchLimits(Value, frozen=True):
    """How often documents are fetched.

    A client that nobody here has used counts by source, by host and over all. One that is kept or
    has a session counts by itself, so that strangers cannot use up what its users need.
    """

    per_source: RateLimit
    per_host: RateLimit
    overall: RateLimit
    per_known_client: RateLimit


class MetadataDocuments:
    """The clients that are URLs. `loopback` also lets http URLs of this machine in."""

    def __init__(self, web: SafeFetcher, *, loopback: bool, limits: FetchLimits) -> None:
        self._web, self._loopback, self._limits = web, loopback, limits
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Client]] = {}

    def names(self, client_id: str) -> bool:
        """Whether this client id is a URL; ids that we generate never are."""
        return client_id.startswith(("https://", "http://"))

    def keeps(self, client_id: str) -> bool:
        """Whether a copy of this client's document is here, fresh or not."""
        return client_id in self._kept

    async def client(
        self, client_id: str, now: float, *, signed_in: bool, known: bool, source: str
    ) -> Client:
        """The client described at `client_id`; fetched once however many wait.

        An older copy stands in when a limit is hit, and for a client that is `signed_in` also
        while its host does not answer. `known`: somebody here has used the client before.
        Raises BadDocument, Unavailable, RateLimited.
        """
        kept = self._kept.get(client_id)
        if kept is not None and now < kept.fresh_until:
            self._kept.move_to_end(client_id)
            return kept.client
        try:
            return await asyncio.shield(self._flight(client_id, now, known=known, source=source))
        except (RateLimited, Unavailable) as failure:
            stands_in = signed_in or isinstance(failure, RateLimited)
            if stands_in and kept is not None and now < kept.usable_until:
                return kept.client
            raise

    def _flight(
        self, client_id: str, now: float, *, known: bool, source: str
    ) -> asyncio.Task[Client]:
        flight = self._flights.get(client_id)
        if flight is None:
            host = check_url(client_id, loopback=self._loopback).hostname or ""
            if known:
                self._limits.per_known_client.take(client_id, now)
            else:
                self._limits.per_source.take(source, now)
                self._limits.per_host.take(host, now)
                self._limits.overall.take("", now)
            flight = asyncio.create_task(self._fetch(client_id, now))
            self._flights[client_id] = flight
            flight.add_done_callback(lambda done: self._landed(client_id, done))
        return flight

    def _landed(self, client_id: str, flight: asyncio.Task[Client]) -> None:
        del self._flights[client_id]
        if not flight.cancelled():
            flight.exception()  # whoever waits gets it; nobody may be left

    async def _fetch(self, client_id: str, now: float) -> Client:
        try:
            fetched = await self._web.fetch(client_id, max_bytes=MAX_BYTES)
        except TooLarge:
            raise BadDocument("too_large") from None
        client = read_document(client_id, fetched)
        seconds = lifetime(fetched.headers)
        self._kept[client_id] = _Kept(client, now + seconds, now + _MAX_SECONDS)
        self._kept.move_to_end(client_id)
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return client


def check_url(text: str, *, loopback: bool) -> SplitResult:
    """The parts of a URL that may be a client id, or a client's `jwks_uri`. Raises BadDocument.

    https with a host of the public DNS, port 443, a path without dot segments; nothing that
    could be read in two ways.
    """
    if len(text) > _MAX_URL_LENGTH or not text.isascii() or not text.isprintable():
        raise BadDocument("url_not_plain")
    if any(sign in text for sign in " \\#@"):
        raise BadDocument("url_with_fragment_or_user")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadDocument("url_not_plain") from None
    if _dotted(parts.path):
        raise BadDocument("url_path")
    if loopback and parts.scheme in ("http", "https") and parts.hostname in _LOOPBACK:
        return parts
    if parts.scheme != "https" or port not in (None, 443) or not _is_public_name(parts.hostname):
        raise BadDocument("url_host_or_port")
    return parts


def _dotted(path: str) -> bool:
    """Whether the path is empty or has a dot segment, in any spelling."""
    segments = path.lower().replace("%2e", ".").replace("%2f", "/").split("/")
    return path in ("", "/") or "." in segments or ".." in segments


def _is_public_name(host: str | None) -> bool:
    if not host or "." not in host.strip(".") or host.endswith((".", *_CLUSTER_SUFFIXES)):
        return False
    if host.rpartition(".")[2].isdigit():
        return False  # 127.1 and its like
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def lifetime(headers: Mapping[str, str]) -> int:
    """For how many seconds a document may be used without asking again (RFC 9111, bounded)."""
    control = headers.get("Cache-Control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return 0
    match = _MAX_AGE.search(control)
    if match is None:
        return _DEFAULT_SECONDS
    age = headers.get("Age", "0")
    spent = int(age) if age.isascii() and age.isdigit() and len(age) < 10 else 0
    return max(0, min(int(match[1]) - spent, _MAX_SECONDS))


def read_document(client_id: str, fetched: Fetched) -> Client:
    """The client of a document. Raises BadDocument."""
    kind = fetched.media_type
    if kind != "application/json" and not re.fullmatch(r"application/[\w.-]+\+json", kind):
        raise BadDocument("media_type")
    try:
        document = json_object(fetched.body)
    except Malformed:
        raise BadDocument("not_json") from None
    if document.get("client_id") != client_id:
        raise BadDocument("other_client_id")
    if "client_secret" in document or "client_secret_expires_at" in document:
        raise BadDocument("shared_secret")
    return Client(
        client_id,
        _name(document),
        _redirect_uris(document),
        _auth_methods(document),
        _grant_types(document),
        "native" if document.get("application_type") == "native" else "web",
        jwks=_jwks(document),
        jwks_uri=_jwks_uri(document),
    )


def _name(document: Mapping[str, Any]) -> str:
    name = document.get("client_name")
    if not isinstance(name, str) or not name.strip():
        raise BadDocument("client_name")
    return "".join(part for part in name if part.isprintable())[:_MAX_NAME_LENGTH].strip()


def _redirect_uris(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the document's URIs that we can serve; one foreign scheme costs not all of them."""
    uris = document.get("redirect_uris")
    if not isinstance(uris, list) or not 0 < len(uris) <= _MAX_REDIRECTS:
        raise BadDocument("redirect_uris")
    kept = tuple(uri for uri in uris if isinstance(uri, str) and redirect_uris.is_registrable(uri))
    if not kept:
        raise BadDocument("redirect_uris")
    return kept


def _auth_methods(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods the client may use: its own choice first, then what else it says it can.

    ChatGPT's document prefers `private_key_jwt` and lists `none`.
    """
    listed = document.get("token_endpoint_auth_methods_supported", [])
    first = document.get("token_endpoint_auth_method", "none")
    wanted = [first, *(listed if isinstance(listed, list) else [])]
    if any(isinstance(one, str) and one.startswith("client_secret") for one in wanted):
        raise BadDocument("shared_secret")
    methods = tuple(dict.fromkeys(one for one in wanted if one in _METHODS))
    if first not in _METHODS and "none" not in methods:
        raise BadDocument("auth_method")
    return methods


def _grant_types(document: Mapping[str, Any]) -> tuple[str, ...]:
    """What we support of what is asked: VS Code also lists the device grant."""
    grant_types = document.get("grant_types", ["authorization_code"])
    if not isinstance(grant_types, list) or "authorization_code" not in grant_types:
        raise BadDocument("grant_types")
    return tuple(grant for grant in GRANT_TYPES if grant in grant_types)


def _jwks(document: Mapping[str, Any]) -> dict[str, Any] | None:
    jwks = document.get("jwks")
    if jwks is None:
        return None
    if not isinstance(jwks, dict) or not isinstance(jwks.get("keys"), list):
        raise BadDocument("jwks")
    return jwks


def _jwks_uri(document: Mapping[str, Any]) -> str | None:
    """Only its form is looked at here; it is fetched, guarded, when an assertion comes."""
    uri = document.get("jwks_uri")
    if uri is not None and not isinstance(uri, str):
        raise BadDocument("jwks_uri")
    return uri
