"""An app's 401 is a hint that its token is over: worth one refresh a minute, and no loop."""

from typing import Final

from chassis.clock import Clock
from sidecar.cached_token import CachedToken
from sidecar.ttl_cache import TtlCache

RENEWAL_SECONDS: Final = 60.0
_MOST: Final = 10_000


class Renewals:
    """Which connections were renewed in the last minute; `now` is monotonic, in seconds."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._renewed = TtlCache[bool](max_entries=_MOST, max_weight=_MOST)

    def begin(self, token: CachedToken) -> bool:
        """Whether the token's connection may be renewed now; then it counts as renewed."""
        now, key = self._now(), _key(token)
        if self._renewed.get(key, now):
            return False
        self._renewed.put(key, True, until=now + RENEWAL_SECONDS)
        return True


def _key(token: CachedToken) -> tuple[str | None, ...]:
    identity = token.identity
    if identity is None:
        return (token.fingerprint,)
    if identity.connection is not None:
        return (identity.connection,)
    return (identity.sub, token.upstream)
