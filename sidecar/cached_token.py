"""A token as the authserver released it, and as this process holds it for a short while."""

import json
import math
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import NamedTuple

from sidecar.apis import HAND_OUT, Api, UnplacedApi
from sidecar.identity import Identity


class Token(NamedTuple):
    """One released access token; times in seconds, counted from when it was asked for.

    `release` says how it may be used, `apis` where the sidecar itself may send it; where that is
    not known for this account, the API is among `unplaced`.
    """

    access_token: str
    upstream: str
    cache_ttl: int
    expires_in: int | None = None
    scope: str | None = None
    release: tuple[str, ...] = ()
    apis: tuple[Api, ...] = ()
    identity: Identity | None = None
    unplaced: tuple[UnplacedApi, ...] = ()

    def __repr__(self) -> str:
        """Without the token: what a future or a traceback prints may reach a log."""
        return f"<Token of {self.upstream}>"


def fingerprint(access_token: str) -> str:
    """The base64url SHA-256 by which an access token is named without being shown."""
    return urlsafe_b64encode(sha256(access_token.encode()).digest()).rstrip(b"=").decode()


class CachedToken:
    """A token in our hands since `asked_at`: when it must be let go, and its answer as JSON.

    The answer is rendered once; only `expires_in` differs from one call to the next. Times are
    monotonic seconds, counted from before the exchange was sent, so that they err on the short
    side.
    """

    __slots__ = (
        "_after", "_before", "_expires_at", "apis", "asked_at", "fingerprint", "hands_out",
        "identity", "release", "unplaced", "until", "upstream",
    )  # fmt: skip

    def __init__(self, token: Token, *, asked_at: float, ttl_max: int) -> None:
        self.asked_at = asked_at
        self.upstream, self.release, self.apis = token.upstream, token.release, token.apis
        self.unplaced = token.unplaced
        self.hands_out = HAND_OUT in token.release
        self.identity = token.identity
        self.fingerprint = fingerprint(token.access_token)
        self._expires_at = math.inf if token.expires_in is None else asked_at + token.expires_in
        self.until = min(asked_at + min(token.cache_ttl, ttl_max), self._expires_at)
        self._before, self._after = _rendered(token)

    @property
    def weight(self) -> int:
        """Bytes it occupies, roughly."""
        return len(self._before) + len(self._after) + 800

    @property
    def access_token(self) -> str:
        """The token itself, for the sidecar's own calls: kept once, in the rendered answer."""
        return str(json.loads(self._before + b"}")["access_token"])

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that it is known to have."""
        return tuple(str(json.loads(b"{" + self._after[1:]).get("scope", "")).split())

    def lasts(self, seconds: int, now: float) -> bool:
        """Whether the token itself lives for `seconds` more; one without an expiry does."""
        return self._expires_at - now >= seconds

    def body(self, now: float) -> bytes:
        """The 200 answer of `POST /v1/token`."""
        if self._expires_at == math.inf:
            return self._before + self._after
        remaining = max(1, math.ceil(self._expires_at - now))
        return b'%b, "expires_in": %d%b' % (self._before, remaining, self._after)


def _rendered(token: Token) -> tuple[bytes, bytes]:
    before = json.dumps({"access_token": token.access_token, "token_type": "Bearer"})
    after = {"upstream": token.upstream}
    if token.scope is not None:
        after["scope"] = token.scope
    return before[:-1].encode(), f", {json.dumps(after)[1:]}".encode()
