"""How a client proves itself at the endpoints it calls without a browser (RFC 6749 section 2.3).

How a client became known makes no difference to how it proves itself.
"""

import base64
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_plus

from authserver.clients.assertions import TYPE, ClientAssertions, unverified_client_id
from authserver.clients.directory import ClientDirectory
from authserver.handles import hash_of
from authserver.oauth.errors import (
    InvalidClient,
    InvalidRequest,
    ProtocolError,
    TemporarilyUnavailable,
)
from authserver.storage.records import Client
from authserver.tokens.jws import BadToken
from authserver.upstream.contract import Unavailable
from authserver.values import Hidden, Value

AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="tokenward"'}

# For the developer of a client; said only of an assertion that the client has signed.
_ASSERTION_FAULTS = {
    "wrong_audience": "the assertion's aud must be the issuer, and nothing else",
    "lifetime_too_long": "the assertion's exp may be at most five minutes ahead",
    "assertion_used_before": "the assertion's jti was used before",
    "expired": "the assertion has expired",
    "not_yet_valid": "the assertion is not valid yet: compare the clocks",
    "bad_claims": "the assertion needs iss, sub, aud, exp, iat and jti",
}


class _Presented(Value, frozen=True):
    client_ids: tuple[str, ...]
    secrets: tuple[str, ...]
    method: str
    unverified_assertion: Hidden[str] = ""


class ClientAuthentication:
    """Finds the client behind a request and checks its proof."""

    def __init__(self, directory: ClientDirectory, assertions: ClientAssertions) -> None:
        self._directory, self._assertions = directory, assertions

    async def authenticate(
        self, fields: Mapping[str, str], headers: Mapping[str, str], now: float
    ) -> Client:
        """The client behind a token request, by the one method it registered (RFC 6749 2.3).

        Raises InvalidRequest where two methods are mixed, InvalidClient for everything else,
        with the same answer for an unknown client and a wrong secret.
        """
        presented = _presented(fields, headers)
        client = await self._first(presented.client_ids, now)
        if client is None:
            raise _refused("unknown_client", presented)
        # Some public clients send a Basic header all the same, with nothing as the secret.
        unproven = presented.method == "client_secret_basic" and presented.secrets == ("",)
        method = "none" if unproven else presented.method
        if method not in client.auth_methods:
            raise _refused("other_auth_method", presented)
        if method != "none":
            await self._check_proof(client, presented)
        return client

    async def _first(self, client_ids: Iterable[str], now: float) -> Client | None:
        for client_id in client_ids:
            if (client := await self._directory.get(client_id, now, signed_in=True)) is not None:
                return client
        return None

    async def _check_proof(self, client: Client, presented: _Presented) -> None:
        if presented.method != "private_key_jwt":
            if not _knows_secret(client, presented.secrets):
                raise _refused("wrong_secret", presented)
            return
        try:
            await self._assertions.check(client, presented.unverified_assertion)
        except BadToken as refused:
            description = _ASSERTION_FAULTS.get(str(refused), "")
            raise InvalidClient(f"assertion_{refused}", description) from None
        except Unavailable:
            raise TemporarilyUnavailable("client_keys_not_fetched") from None


def claimed_client_id(fields: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """Whom a request claims to come from, for counting it; empty where it cannot be read."""
    try:
        return _presented(fields, headers).client_ids[0]
    except ProtocolError:
        return ""


def _presented(fields: Mapping[str, str], headers: Mapping[str, str]) -> _Presented:
    in_body = fields.get("client_id")
    if "client_assertion" in fields or "client_assertion_type" in fields:
        return _asserted(fields, headers)
    if "Authorization" in headers:
        client_id, secret = _basic(headers["Authorization"])
        client_ids = _spellings(client_id)
        if "client_secret" in fields or in_body not in (None, *client_ids):
            raise InvalidRequest("two_client_authentications")
        return _Presented(client_ids, _spellings(secret), "client_secret_basic")
    if in_body is None:
        raise InvalidClient("no_client_id")
    if "client_secret" in fields:
        return _Presented((in_body,), (fields["client_secret"],), "client_secret_post")
    return _Presented((in_body,), (), "none")


def _basic(header: str) -> tuple[str, str]:
    """Both halves of a Basic header as sent. Authlib's reader decodes them, or fails to."""
    scheme, _, encoded = header.partition(" ")
    try:
        pair = base64.b64decode(encoded.strip(" "), validate=True).decode()
    except ValueError:
        pair = ""
    if scheme.lower() != "basic" or ":" not in pair:
        raise InvalidClient("bad_basic_header", headers=_CHALLENGE)
    client_id, _, secret = pair.partition(":")
    return client_id, secret


def _spellings(text: str) -> tuple[str, ...]:
    """Half of a Basic pair as sent and form-decoded: clients disagree on RFC 6749 section 2.3.1."""
    return tuple(dict.fromkeys((text, unquote_plus(text))))


def _asserted(fields: Mapping[str, str], headers: Mapping[str, str]) -> _Presented:
    if "Authorization" in headers or "client_secret" in fields:
        raise InvalidRequest("two_client_authentications")
    assertion = fields.get("client_assertion", "")
    try:
        client_id = unverified_client_id(assertion)
    except BadToken:
        client_id = None
    if fields.get("client_assertion_type") != TYPE or client_id is None:
        raise InvalidClient("bad_client_assertion")
    if fields.get("client_id", client_id) != client_id:
        raise InvalidClient("client_id_of_another_client")
    return _Presented((client_id,), (), "private_key_jwt", assertion)


def _knows_secret(client: Client, secrets: tuple[str, ...]) -> bool:
    stored = client.secret_hash
    return stored is not None and any(
        hmac.compare_digest(hash_of(secret), stored) for secret in secrets
    )


def _refused(reason: str, presented: _Presented) -> InvalidClient:
    basic = presented.method == "client_secret_basic"
    return InvalidClient(reason, headers=_CHALLENGE if basic else None)
