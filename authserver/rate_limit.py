"""Rate limits: token buckets by key, bounded in number, in this process's memory."""

from collections import OrderedDict
from typing import Final

from authserver.oauth.errors import RateLimited

_MAX_KEYS: Final = 20_000
_RESERVED: Final = 0.2


class RateLimit:
    """At most `rate` events per `per` seconds for each key, with bursts of up to `burst`.

    `name` is the reason that its refusals carry.
    """

    def __init__(self, name: str, rate: int, per: float, *, burst: int | None = None) -> None:
        self._name = name
        self._refill = rate / per
        self._burst = float(burst or rate)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> None:
        """Count one event. Raises RateLimited when there are too many."""
        left = self._left(key, now)
        if left < 1:
            raise self._refusal(left)
        self._remember(key, left - 1, now)

    def check(self, key: str, now: float) -> None:
        """Raise RateLimited if `take` would, and count nothing."""
        left = self._left(key, now)
        if left < 1:
            raise self._refusal(left)

    def _left(self, key: str, now: float) -> float:
        left, since = self._buckets.get(key, (self._burst, now))
        if now < since:
            # The clock was set back: time counts from here, or nothing would until it catches up.
            self._buckets[key] = (left, now)
            return left
        return min(self._burst, left + (now - since) * self._refill)

    def _refusal(self, left: float) -> RateLimited:
        return RateLimited(self._name, retry_after=int((1 - left) / self._refill) + 1)

    def _remember(self, key: str, left: float, now: float) -> None:
        self._buckets[key] = (left, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _MAX_KEYS:
            self._buckets.popitem(last=False)


class SharedRateLimit:
    """One rate for all keys together, of which a part is kept for keys not seen lately.

    Whoever has used up the rest, from however few keys, does not keep a newcomer out.
    """

    def __init__(self, name: str, rate: int, per: float, *, lately: float = 600) -> None:
        reserved = max(1, int(rate * _RESERVED))
        self._common = RateLimit(name, max(1, rate - reserved), per)
        self._reserved = RateLimit(name, reserved, per)
        self._lately = lately
        self._seen: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, now: float) -> None:
        """Count one event of `key`. Raises RateLimited when there are too many."""
        newcomer = now - self._seen.get(key, -self._lately) >= self._lately
        self._seen[key] = now
        self._seen.move_to_end(key)
        if len(self._seen) > _MAX_KEYS:
            self._seen.popitem(last=False)
        try:
            self._common.take("", now)
        except RateLimited:
            if not newcomer:
                raise
            self._reserved.take("", now)
