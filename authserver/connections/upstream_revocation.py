"""Revoking deleted tokens at their upstream: at once, and again until it has done so.

What is to be revoked is queued in the transaction that deletes it. This process then tries at once;
what it leaves is tried again by housekeeping, after pauses that grow, until it is given up. An
upstream in trouble gets one call at a time, however much waits for it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Final

from authserver.audit import Audit, Outcome, Subject
from authserver.connections.registration_binding import RegistrationBinding
from authserver.connections.upstream_health import Place, UpstreamHealth
from authserver.metrics import Metrics
from authserver.storage.connections import Connections
from authserver.storage.contract import StorageUnavailable
from authserver.storage.records import Connection, ConnectionKey
from authserver.storage.upstream_revocations import (
    KEPT_SECONDS,
    UpstreamRevocation,
    UpstreamRevocations,
)
from authserver.upstream.contract import Unavailable, Upstream, UpstreamFailure
from authserver.values import Value
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("upstream_revocation")

_FIRST_PAUSE_SECONDS: Final = 30
_LONGEST_PAUSE_SECONDS: Final = 3600
# A call that is older makes its upstream a slow one, and then calls go there one at a time.
_SLOW_CALL_SECONDS: Final = 2.0
# Discovery and the call itself, with their own limits.
_FLIGHT_SECONDS: Final = 25.0
_MAX_CALLS: Final = 8
# What more is deleted at one moment is left to housekeeping.
_MAX_UNDER_WAY: Final = 64
_PAGE: Final = 100
_ROUND_SECONDS: Final = 15.0


class Fate(StrEnum):
    """What became of a deleted connection's grant at its upstream, so far."""

    REVOKED = "revoked"
    STILL_USED = "still_used"
    NO_REVOCATION_ENDPOINT = "no_revocation_endpoint"
    REGISTRATION_NOT_CONFIGURED = "registration_not_configured"
    QUEUED = "queued"
    GIVEN_UP = "given_up"


class Revoked(Value, frozen=True):
    """A deleted connection and the fate of its grant; `reason` is a code where there is more."""

    key: ConnectionKey
    fate: Fate
    reason: str = ""


Revocations = list[asyncio.Task[Revoked]]

# Begins an attempt: the revocation as it is ours to make now, None where it is not.
SetOut = Callable[[], Awaitable[UpstreamRevocation | None]]


class UpstreamRevoker:
    """`uniform` makes pauses differ, so that what failed together does not come back together."""

    def __init__(
        self,
        queue: UpstreamRevocations,
        connections: Connections,
        binding: RegistrationBinding,
        audit: Audit,
        metrics: Metrics,
        clock: Clock,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._queue, self._connections, self._binding = queue, connections, binding
        self._audit, self._metrics, self._clock, self._uniform = audit, metrics, clock, uniform
        self._health = UpstreamHealth(_SLOW_CALL_SECONDS, clock, _loop_time, uniform)
        self._calls = asyncio.Semaphore(_MAX_CALLS)
        self._under_way: set[asyncio.Task[Revoked]] = set()

    def start(self, queued: Sequence[UpstreamRevocation]) -> Revocations:
        """Set out to revoke, in the background, what was queued just now."""
        return [self._start(one) for one in queued]

    async def add(self, connection: Connection) -> None:
        """Queue tokens that came when their connection was gone already, and set out.

        Raises StorageUnavailable.
        """
        self._start(await self._queue.add(connection, int(self._clock())))

    async def retry(self) -> None:
        """Try again what is due, at each upstream for some seconds. Raises StorageUnavailable."""
        upstreams = await self._queue.upstreams_due(int(self._clock()))
        await asyncio.gather(*(self._retry_at(upstream) for upstream in upstreams))

    async def measure(self) -> None:
        """Show how many wait at each upstream, and since when."""
        waiting = await self._queue.waiting()
        self.measure_nothing()
        for one in waiting:
            self._metrics.upstream_revocations_pending.labels(one.upstream).set(one.count)
            self._metrics.oldest_upstream_revocation.labels(one.upstream).set(one.oldest_at)

    def measure_nothing(self) -> None:
        """Another replica shows it."""
        self._metrics.upstream_revocations_pending.clear()
        self._metrics.oldest_upstream_revocation.clear()

    def not_revoked(self, user_id: str, upstream: str) -> None:
        """List a deleted connection that nobody can revoke: its registration is not configured."""
        self._list(user_id, upstream)
        _log.warning("not_revoked_upstream", upstream=upstream, reason="registration")

    async def drain(self) -> None:
        """Wait for the attempts under way; for the end of the process and for tests."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _start(self, one: UpstreamRevocation) -> asyncio.Task[Revoked]:
        crowded = len(self._under_way) >= _MAX_UNDER_WAY
        task = asyncio.create_task(_left(one, "many_at_once") if crowded else self._first(one))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _first(self, one: UpstreamRevocation) -> Revoked:
        """The attempt that was begun where it was queued, if there is still time for it."""

        async def set_out() -> UpstreamRevocation | None:
            return one if self._clock() < one.next_at - _FLIGHT_SECONDS else None

        async with self._calls:
            return await self._attempt(one, set_out)

    async def _retry_at(self, upstream: str) -> None:
        """Until nothing is due, the upstream gets no more calls, or the time is over."""
        until = _loop_time() + _ROUND_SECONDS
        while due := await self._queue.due(upstream, int(self._clock()), _PAGE):
            if not any(await asyncio.gather(*(self._retry_one(one, until) for one in due))):
                return

    async def _retry_one(self, one: UpstreamRevocation, until: float) -> bool:
        """Whether anybody has set out for it."""
        begun = False

        async def set_out() -> UpstreamRevocation | None:
            nonlocal begun
            claimed = await self._queue.claim(one, int(self._clock()))
            begun = True
            return claimed

        async with self._calls:
            if _loop_time() < until:
                await self._attempt(one, set_out)
        return begun

    async def _attempt(self, one: UpstreamRevocation, set_out: SetOut) -> Revoked:
        """Revoke where the tokens came from, or nowhere: no other upstream may see them."""
        upstream = self._binding.upstream_of(one.connection)
        try:
            if upstream is None:
                ours = await set_out()
                return await (self._without_registration(ours) if ours else _left(one))
            with await self._health.place(upstream.name, fate_unknown=False) as place:
                ours = await set_out()
                return await (self._revoke(upstream, ours, place) if ours else _left(one))
        except Unavailable as paused:
            return await _left(one, paused.reason)
        except StorageUnavailable:
            _log.warning("upstream_revocation_failed", upstream=_name(one), reason="storage_down")
            return await _left(one, "storage_down")

    async def _revoke(self, upstream: Upstream, ours: UpstreamRevocation, place: Place) -> Revoked:
        if upstream.revocation_ends_grant and await self._connections.shares_its_grant(
            ours.connection
        ):
            # It would end the grant that the other connection lives on.
            _log.info("not_revoked_upstream", upstream=upstream.name, reason="still_used")
            return await self._finish(ours, Fate.STILL_USED)
        place.call()
        try:
            with place:
                async with asyncio.timeout(_FLIGHT_SECONDS):
                    revoked = await upstream.revoke(ours.connection.tokens)
        except (UpstreamFailure, TimeoutError) as failure:
            return await self._failed(upstream, ours, failure)
        self._health.answered(upstream.name, success=True)
        return await self._finish(ours, Fate.REVOKED if revoked else Fate.NO_REVOCATION_ENDPOINT)

    async def _failed(
        self, upstream: Upstream, ours: UpstreamRevocation, failure: UpstreamFailure | TimeoutError
    ) -> Revoked:
        facts = getattr(failure, "facts", {"upstream": upstream.name, "reason": "took_too_long"})
        _log.warning("upstream_revocation_failed", **facts)
        if isinstance(failure, Unavailable) and failure.refused:
            self._health.answered(upstream.name, success=False)
            return await self._give_up(ours, facts["reason"])
        retry_after = failure.retry_after if isinstance(failure, Unavailable) else None
        self._health.failed(upstream.name, retry_after)
        return await self._put_off(ours, Fate.QUEUED, facts["reason"], at_least=retry_after or 0)

    async def _without_registration(self, ours: UpstreamRevocation) -> Revoked:
        """The operator may put the registration back, or name it as a former one."""
        if ours.attempts <= 1:
            _log.warning("not_revoked_upstream", upstream=_name(ours), reason="registration")
        return await self._put_off(ours, Fate.REGISTRATION_NOT_CONFIGURED, "registration")

    async def _put_off(
        self, ours: UpstreamRevocation, fate: Fate, reason: str, *, at_least: int = 0
    ) -> Revoked:
        now = int(self._clock())
        if now - ours.queued_at >= KEPT_SECONDS:
            return await self._give_up(ours, reason)
        doublings = min(max(0, ours.attempts - 1), 16)
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**doublings)
        await self._queue.put_off(ours, now + max(at_least, int(self._uniform(pause / 2, pause))))
        return self._counted(ours, fate, reason if fate is Fate.QUEUED else "")

    async def _give_up(self, ours: UpstreamRevocation, reason: str) -> Revoked:
        if await self._queue.finish(ours):
            _log.warning("upstream_revocation_given_up", upstream=_name(ours), reason=reason)
            self._list(ours.connection.key.user_id, _name(ours))
        return self._counted(ours, Fate.GIVEN_UP, reason)

    async def _finish(self, ours: UpstreamRevocation, fate: Fate) -> Revoked:
        await self._queue.finish(ours)
        return self._counted(ours, fate, "")

    def _counted(self, ours: UpstreamRevocation, fate: Fate, reason: str) -> Revoked:
        self._metrics.upstream_revocations.labels(_name(ours), fate.value).inc()
        return Revoked(ours.connection.key, fate, reason)

    def _list(self, user_id: str, upstream: str) -> None:
        """For the audit trail: this grant may live on at its upstream."""
        subject = Subject(user_id, upstream=upstream)
        self._audit.connection_purge(subject, Outcome.FAILED, "not_revoked_upstream")


async def _left(one: UpstreamRevocation, reason: str = "") -> Revoked:
    """Somebody tries later, or is trying."""
    return Revoked(one.connection.key, Fate.QUEUED, reason)


def _name(one: UpstreamRevocation) -> str:
    return one.connection.key.upstream


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
