"""`private_key_jwt`: a client proves itself with a signed assertion (RFC 7523, FAPI 2.0).

The audience is our issuer and nothing else, the life is short, and every `jti` counts once for
all replicas: what is overheard elsewhere or before proves nothing here (the Hydra advisory
GHSA-3p3g-vpw6-4w66 is about the second half of that).
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from authserver.clients.metadata_documents import BadDocument, check_url
from authserver.clients.safe_fetch import SafeFetcher
from authserver.oauth.parsing import Malformed, short_text, whole_number
from authserver.storage.records import Client
from authserver.storage.used_assertions import UsedAssertions
from authserver.tokens.jws import (
    BadToken,
    VerificationKey,
    unverified_claims,
    unverified_kid,
    verify,
)
from authserver.upstream.jwks import RemoteKeys, verification_keys
from chassis.clock import Clock

TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TYPES: Final = frozenset({"jwt", "client-authentication+jwt", None})
_MAX_LIFE_SECONDS: Final = 300
_LEEWAY: Final = 5
_MAX_KEY_SETS: Final = 256


class ClientAssertions:
    """Checks assertions. `loopback` also lets a `jwks_uri` on this machine be fetched."""

    def __init__(
        self, issuer: str, web: SafeFetcher, used: UsedAssertions, clock: Clock, *, loopback: bool
    ) -> None:
        self._issuer, self._web, self._used, self._clock = issuer, web, used, clock
        self._loopback = loopback
        self._remote: OrderedDict[tuple[str, str], RemoteKeys] = OrderedDict()

    async def check(self, client: Client, unverified_jwt: str) -> None:
        """Accept an assertion of this client, once. Raises BadToken, or Unavailable for keys."""
        keys = await self._keys(client, unverified_kid(unverified_jwt))
        claims = verify(unverified_jwt, keys.get, types=_TYPES).payload
        now = self._clock()
        try:
            jti, expires_at = self._read(client, claims, now)
        except Malformed:
            raise BadToken("bad_claims") from None
        if not await self._used.first_use(client.client_id, jti, expires_at + _LEEWAY):
            raise BadToken("assertion_used_before")

    def _read(self, client: Client, claims: dict[str, Any], now: float) -> tuple[str, int]:
        if not claims.get("iss") == claims.get("sub") == client.client_id:
            raise BadToken("wrong_client")
        if claims.get("aud") != self._issuer:
            raise BadToken("wrong_audience")
        expires_at = whole_number(claims, "exp")
        starts = max(whole_number({"nbf": 0} | claims, name) for name in ("iat", "nbf"))
        if now >= expires_at + _LEEWAY:
            raise BadToken("expired")
        if starts > now + _LEEWAY:
            raise BadToken("not_yet_valid")
        if expires_at > now + _MAX_LIFE_SECONDS + _LEEWAY:
            raise BadToken("lifetime_too_long")
        return short_text(claims, "jti"), expires_at

    async def _keys(self, client: Client, kid: str | None) -> Mapping[str | None, VerificationKey]:
        if client.jwks is not None:
            return verification_keys(client.jwks["keys"])
        if client.jwks_uri is None:
            raise BadToken("client_has_no_keys")
        try:
            check_url(client.jwks_uri, loopback=self._loopback)
        except BadDocument:
            raise BadToken("jwks_uri_refused") from None
        remote = self._remote_keys(client.client_id, client.jwks_uri)
        await remote.learn(kid, client.jwks_uri)
        key = remote.find(kid)
        return {kid: key} if key is not None else {}

    def _remote_keys(self, client_id: str, jwks_uri: str) -> RemoteKeys:
        place = (client_id, jwks_uri)
        keys = self._remote.get(place)
        if keys is None:
            keys = self._remote[place] = RemoteKeys(self._web, self._clock)
            if len(self._remote) > _MAX_KEY_SETS:
                self._remote.popitem(last=False)
        self._remote.move_to_end(place)
        return keys


def unverified_client_id(unverified_jwt: str) -> str | None:
    """Whom an assertion claims to come from; a client id is looked up by it and nothing else."""
    client_id = unverified_claims(unverified_jwt).get("sub")
    return client_id if isinstance(client_id, str) else None
