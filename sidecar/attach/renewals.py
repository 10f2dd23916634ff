"""What follows from an API's 401, or from an answer that holds the token: at most one renewal.

Such a report is a hint and never a verdict; the authserver decides what it means. A connection is
renewed once in 60 s, however many calls and JWTs meet the refusal.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from chassis.clock import Clock
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
        cached: Callable[[str, TokenRequest], CachedToken | None],
        obtain: Callable[[str, TokenRequest], Coroutine[Any, Any, Outcome]],
        now: Clock,
    ) -> None:
        self._cached, self._obtain, self._now = cached, obtain, now
        self._begun = TtlCache[asyncio.Task[Outcome]](max_entries=_MOST, max_weight=_MOST)

    async def renewed(self, unverified_jwt: str, used: CachedToken) -> Outcome | None:
        """Another token than `used`, or why there is none; None where nothing new can be had.

        The caller may be cancelled; the renewal goes on for the others.
        """
        held = self._cached(unverified_jwt, TokenRequest(used.upstream))
        if held is not None and held.fingerprint != used.fingerprint:
            return held
        task = self.begin(unverified_jwt, used)
        if task is None:
            return None
        await asyncio.wait((task,))
        if task.cancelled():
            return None
        outcome = task.result()
        if isinstance(outcome, CachedToken) and outcome.fingerprint == used.fingerprint:
            return None
        return outcome

    def begin(self, unverified_jwt: str, used: CachedToken) -> asyncio.Task[Outcome] | None:
        """Start a renewal, or join the one under way; None where one was tried a moment ago."""
        now = self._now()
        begun = self._begun.get(used.fingerprint, now)
        if begun is not None:
            return None if begun.done() else begun
        task = asyncio.create_task(self._renew(unverified_jwt, used, now + RENEWAL_SECONDS))
        self._begun.put(used.fingerprint, task, until=now + RENEWAL_SECONDS)
        return task

    def sweep(self) -> None:
        """Forget what is past its time."""
        self._begun.sweep(self._now())

    async def _renew(self, unverified_jwt: str, used: CachedToken, until: float) -> Outcome:
        rejecting = TokenRequest(used.upstream, rejected=used.fingerprint)
        outcome = await self._obtain(unverified_jwt, rejecting)
        task = asyncio.current_task()
        if isinstance(outcome, CachedToken) and task is not None:
            self._begun.put(outcome.fingerprint, task, until=until)
        return outcome
