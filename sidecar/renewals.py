"""What follows from a 401 to a token, or from an answer that holds it: at most one renewal.

Such a report is a hint and never a verdict; the authserver decides what it means. A connection is
renewed once in 60 s, however many calls and JWTs meet the refusal.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from chassis.clock import Clock
from sidecar.broker import hash_of
from sidecar.cached_token import CachedToken
from sidecar.errors import ApiError
from sidecar.token_request import TokenRequest
from sidecar.ttl_cache import TtlCache

RENEWAL_SECONDS: Final = 60.0
_MOST: Final = 10_000

Outcome = CachedToken | ApiError


class Renewals:
    """`cached` and `obtain` are those of the token source; `now` is monotonic seconds.

    A connection is known by its token: the one that was refused, and the one that came of that.
    """

    def __init__(
        self,
        cached: Callable[[bytes, TokenRequest], CachedToken | None],
        obtain: Callable[[str, TokenRequest], Coroutine[Any, Any, Outcome]],
        now: Clock,
    ) -> None:
        self._cached, self._obtain, self._now = cached, obtain, now
        self._begun = TtlCache[asyncio.Task[Outcome]](max_entries=_MOST, max_weight=_MOST)

    async def renewed(
        self, unverified_jwt: str, used: CachedToken, token_request: TokenRequest | None = None
    ) -> Outcome | None:
        """Another token than `used`, or why there is none; None where nothing new can be had.

        `token_request` is what `used` answers, where that is more than its upstream's name. The
        caller may be cancelled; the renewal goes on for the others.
        """
        held = self._cached(hash_of(unverified_jwt), token_request or TokenRequest(used.upstream))
        if held is not None and held.fingerprint != used.fingerprint:
            return held
        task = self.begin(unverified_jwt, used, token_request)
        if task is None:
            return None
        await asyncio.wait((task,))
        if task.cancelled():
            return None
        outcome = task.result()
        if isinstance(outcome, CachedToken) and outcome.fingerprint == used.fingerprint:
            return None
        return outcome

    def begin(
        self, unverified_jwt: str, used: CachedToken, token_request: TokenRequest | None = None
    ) -> asyncio.Task[Outcome] | None:
        """Start a renewal, or join the one under way; None where one was tried a moment ago."""
        now = self._now()
        begun = self._begun.get(used.fingerprint, now)
        if begun is not None:
            return None if begun.done() else begun
        request = (token_request or TokenRequest(used.upstream))._replace(rejected=used.fingerprint)
        renewing = self._renew(unverified_jwt, request, now + RENEWAL_SECONDS)
        task = asyncio.create_task(renewing)
        self._begun.put(used.fingerprint, task, until=now + RENEWAL_SECONDS)
        return task

    def sweep(self) -> None:
        """Forget what is past its time."""
        self._begun.sweep(self._now())

    async def _renew(self, unverified_jwt: str, rejecting: TokenRequest, until: float) -> Outcome:
        outcome = await self._obtain(unverified_jwt, rejecting)
        task = asyncio.current_task()
        if isinstance(outcome, CachedToken) and task is not None:
            self._begun.put(outcome.fingerprint, task, until=until)
        return outcome
