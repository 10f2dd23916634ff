"""An OpenID provider's metadata (OpenID Connect Discovery), fetched when first needed.

An unreachable provider never stops the process: a failed fetch is tried again a few seconds
later, and metadata once read outlives an outage.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from authserver.oauth.parsing import Malformed, short_text
from authserver.upstream.contract import Unavailable, UpstreamFailure
from authserver.upstream.http_client import HttpClient
from authserver.values import Value
from chassis.clock import Clock

_KEPT_SECONDS: Final = 3600
_RETRY_SECONDS: Final = 5
# A refresh counts on this: what it waits here, it must not lack when its token is on the way.
_WAIT_SECONDS: Final = 3


class Provider(Value, frozen=True):
    """The members of the discovery document that we use, checked."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str | None
    userinfo_endpoint: str | None
    posts_secret: bool
    sends_issuer: bool


class Discovery:
    """The current metadata of one issuer."""

    def __init__(self, issuer: str, http: HttpClient, clock: Clock) -> None:
        self._issuer, self._http, self._clock = issuer, http, clock
        self._fetching = asyncio.Lock()
        self._provider: Provider | None = None
        self._next_fetch = 0.0

    async def provider(self) -> Provider:
        """Raises Unavailable where the metadata was never read, after a few seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_SECONDS), self._fetching:
                if self._clock() >= self._next_fetch:
                    await self._fetch()
        if self._provider is None:
            raise Unavailable("discovery_failed_a_moment_ago")
        return self._provider

    async def _fetch(self) -> None:
        self._next_fetch = self._clock() + _RETRY_SECONDS
        url = f"{self._issuer.removesuffix('/')}/.well-known/openid-configuration"
        try:
            status, document = await self._http.get(url)
            self._provider = self._read(status, document)
        except UpstreamFailure:
            if self._provider is None:
                raise
            return
        self._next_fetch = self._clock() + _KEPT_SECONDS

    def _read(self, status: int, document: dict[str, Any]) -> Provider:
        if status != 200:
            raise Unavailable("discovery_refused")
        if document.get("issuer") != self._issuer:
            raise Unavailable("discovery_not_of_this_issuer", member="issuer", lasting=True)
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if not isinstance(methods, list):
            raise Unavailable(
                "discovery_unusable", member="token_endpoint_auth_methods_supported", lasting=True
            )
        return Provider(
            self._endpoint(document, "authorization_endpoint"),
            self._endpoint(document, "token_endpoint"),
            self._endpoint(document, "jwks_uri"),
            self._optional(document, "revocation_endpoint"),
            self._optional(document, "userinfo_endpoint"),
            posts_secret="client_secret_basic" not in methods,
            sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _optional(self, document: dict[str, Any], name: str) -> str | None:
        """An endpoint that may be absent; documents also say that with null or an empty text."""
        return self._endpoint(document, name) if document.get(name) not in (None, "") else None

    def _endpoint(self, document: dict[str, Any], name: str) -> str:
        try:
            url = short_text(document, name, 2048)
        except Malformed:
            raise Unavailable("discovery_unusable", member=name, lasting=True) from None
        if not url.startswith("https://") and urlsplit(url).scheme != urlsplit(self._issuer).scheme:
            # An endpoint weaker than its issuer.
            raise Unavailable("discovery_unusable", member=name, lasting=True)
        return url
