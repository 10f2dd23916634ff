"""Challenges that a program of the pod was given for a client's JWT, for the gateway to pass on.

A tool learns that a scope is missing after its MCP client's request has begun, and most servers
turn that into the tool's own words. The gateway answers the client with the challenge instead.
"""

from hashlib import sha256
from typing import Final

from chassis.clock import Clock
from sidecar.errors import ApiError
from sidecar.ttl_cache import TtlCache

PENDING_SECONDS: Final = 60.0
_MOST: Final = 1_000


class PendingChallenges:
    """At most one for each JWT, given to its client once. `now` is monotonic, in seconds."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._pending = TtlCache[ApiError](max_entries=_MOST, max_weight=_MOST)

    def put(self, unverified_jwt: str, challenge: ApiError) -> None:
        """The authserver has refused this JWT for a scope that its user can be asked for."""
        self._pending.put(_key(unverified_jwt), challenge, until=self._now() + PENDING_SECONDS)

    def take(self, unverified_jwt: str) -> ApiError | None:
        """The challenge, and forget it."""
        if not len(self._pending):
            return None
        key = _key(unverified_jwt)
        challenge = self._pending.get(key, self._now())
        self._pending.drop(key)
        return challenge

    def sweep(self) -> None:
        self._pending.sweep(self._now())


def _key(unverified_jwt: str) -> bytes:
    return sha256(unverified_jwt.encode()).digest()
