"""A provider's public keys: fetched when a `kid` is unknown, at most once in 30 seconds."""

import asyncio
from collections.abc import Collection
from typing import Any, Final, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from authserver.tokens.algorithms import OURS, usable_with
from authserver.tokens.jws import VerificationKey
from authserver.upstream.contract import Unavailable
from chassis.clock import Clock


class Fetches(Protocol):
    """Gets status and JSON object of a URL; raises Unavailable."""

    async def get(self, url: str) -> tuple[int, dict[str, Any]]: ...


_FETCH_SECONDS: Final = 30
_MAX_KEYS: Final = 100


class RemoteKeys:
    """The last good keys of one provider."""

    def __init__(self, http: Fetches, clock: Clock, accepted: Collection[str] = OURS) -> None:
        self._http, self._clock, self._accepted = http, clock, accepted
        self._fetching = asyncio.Lock()
        self._keys: dict[str | None, VerificationKey] = {}
        self._next_fetch = 0.0

    def find(self, kid: str | None) -> VerificationKey | None:
        return self._keys.get(kid)

    async def learn(self, kid: str | None, jwks_uri: str) -> None:
        """Fetch the keys if `kid` is not among those we have. Raises Unavailable."""
        async with self._fetching:
            if kid in self._keys or self._clock() < self._next_fetch:
                return
            self._next_fetch = self._clock() + _FETCH_SECONDS
            status, document = await self._http.get(jwks_uri)
            keys = document.get("keys")
            if status != 200 or not isinstance(keys, list) or len(keys) > _MAX_KEYS:
                raise Unavailable("jwks_unusable", member="keys")
            self._keys = verification_keys(keys, self._accepted)


def verification_keys(
    keys: list[Any], accepted: Collection[str] = OURS
) -> dict[str | None, VerificationKey]:
    """The usable signature keys by `kid`; a set of one may be addressed without a `kid`.

    `accepted` holds the names of the algorithms whose signatures count.
    """
    usable: dict[str | None, VerificationKey] = {}
    for key in keys:
        if not isinstance(key, dict) or key.get("use", "sig") != "sig":
            continue
        algorithms = usable_with(key, accepted)
        if not algorithms:
            continue
        try:
            imported: Any = KeySet.import_key_set({"keys": [key]}).keys[0]
        except (JoseError, ValueError):
            continue
        usable[key.get("kid")] = VerificationKey(imported, algorithms)
    if len(usable) == 1:
        usable[None] = next(iter(usable.values()))
    return usable
