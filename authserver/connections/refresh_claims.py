"""Present a refresh token upstream under a durable claim, across processes.

- stored: the answer came and is the next generation; the claim is gone with the old one.
- given back: the upstream certainly did not act, and nobody held the claim before; anybody may try
  again.
- left behind: nobody knows whether the upstream acted. An upstream that does not rotate may be
  asked again, one that promises a grace for reuse within it; with any other, the connection
  needs a new sign-in.
A process that dies leaves its claim behind without a word, so a claim counts as left behind
after a time that no flight takes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from authserver.connections.backoff import Backoff
from authserver.handles import NewHandle
from authserver.metrics import Metrics
from authserver.storage.claim_rows import ClaimRows, StaleClaimRule
from authserver.storage.connections import Connections
from authserver.storage.contract import StorageUnavailable
from authserver.storage.records import Connection, ConnectionKey, UpstreamTokens
from authserver.upstream.contract import (
    GrantRevoked,
    OutcomeUnknown,
    Unavailable,
    Upstream,
    Upstreams,
)
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("presenting")

_T = TypeVar("_T")

FLIGHT_SECONDS: Final = 15
# Longer than any flight whose process and database are alive: nobody is behind a claim this old.
LEASE_SECONDS: Final = 60
# Within a grace there is no time to lose, and an overlap does no harm.
_GRACE_LEASE_SECONDS: Final = FLIGHT_SECONDS + 5
# A grace is counted by the upstream's clock, and our request takes its time to get there.
_GRACE_MARGIN_SECONDS: Final = 5
# After an outage of the database, whoever holds a claim gets the time to store what it brought.
_WATCH_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1
_STORE_PAUSES: Final = (0.05, 0.1, 0.2, 0.4)
_MAX_STORE_PAUSE_SECONDS: Final = 0.8
_HURRIED_STORES: Final = 15


class ClaimedRefresh:
    def __init__(
        self,
        connections: Connections,
        claims: ClaimRows,
        upstreams: Upstreams,
        metrics: Metrics,
        clock: Clock,
        new_handle: NewHandle,
    ) -> None:
        self._connections, self._claims = connections, claims
        self._upstreams, self._metrics = upstreams, metrics
        self._clock, self._new_handle = clock, new_handle
        self._breaker = Backoff(connection_limits=5, first=1, longest=30)
        self._each = Backoff(connection_limits=2, first=1, longest=60)
        self._uncertain: dict[tuple[ConnectionKey, int], asyncio.Task[None]] = {}
        self._hurried = False

    def stop_retrying(self) -> None:
        """The process is about to end: a database that is down is waited for no longer."""
        self._hurried = True

    async def drain(self) -> None:
        """Wait until no claim of ours is in doubt; for the end of the process and for tests."""
        await asyncio.gather(*self._uncertain.values(), return_exceptions=True)

    async def next_generation(self, found: Connection) -> Connection:
        """Refresh `found`, or adopt what another process made of it.

        Raises GrantRevoked, Unavailable or StorageUnavailable.
        """
        upstream = self._upstreams.get(found.key.upstream)
        if upstream is None:
            raise Unavailable("upstream_not_configured")
        if (found.key, found.generation) in self._uncertain:
            raise StorageUnavailable("claim_in_doubt")
        self._check_breaker(upstream, found)
        watched: tuple[str | None, float] = (None, 0.0)
        while True:
            claim = await self._claimed(upstream, found)
            if claim is not None:
                return await self._present(upstream, found, claim)
            latest = await self._latest(found)
            if latest.generation != found.generation:
                return latest
            if latest.dead:
                raise GrantRevoked("connection_needs_sign_in")
            if latest.refresh_claim != watched[0]:
                watched = (latest.refresh_claim, asyncio.get_running_loop().time())
            if self._is_lost(upstream, latest, watched[1]):
                assert latest.refresh_claim is not None
                await self._mark_dead(found, latest.refresh_claim, "claim_left_behind")
            await asyncio.sleep(_POLL_SECONDS)

    def _check_breaker(self, upstream: Upstream, found: Connection) -> None:
        now = self._clock()
        if not self._each.allow((found.key, found.generation), now):
            raise Unavailable("connection_backing_off")
        if not self._breaker.allow(upstream.name, now):
            raise Unavailable("upstream_backing_off")

    async def _claimed(self, upstream: Upstream, found: Connection) -> str | None:
        """The claim we took; None where somebody else holds one."""
        now, claim = int(self._clock()), self._new_handle()
        try:
            taken = await self._claims.claim(found, claim, now, _left_behind(upstream, now))
        except StorageUnavailable:
            self._release_claim(found, claim)
            raise
        return claim if taken else None

    def _release_claim(self, found: Connection, claim: str) -> None:
        """Undo a claim that may have been recorded all the same: it would count as left behind.

        At once and not with the next call, which may be long in coming.
        """
        key = (found.key, found.generation)
        task = asyncio.create_task(self._give_back(found, claim))
        self._uncertain[key] = task
        task.add_done_callback(lambda _: self._uncertain.pop(key))

    def _is_lost(self, upstream: Upstream, latest: Connection, watched_since: float) -> bool:
        """Whether nobody is behind the claim, and nobody may take it over."""
        claimed_at = latest.refresh_claimed_at
        old = claimed_at is not None and claimed_at < self._clock() - LEASE_SECONDS
        watched = asyncio.get_running_loop().time() - watched_since
        return upstream.rotates_refresh_tokens and old and watched > _WATCH_SECONDS

    async def _present(self, upstream: Upstream, found: Connection, claim: str) -> Connection:
        assert found.tokens.refresh_token is not None
        try:
            tokens = await self._ask(upstream, found)
        except GrantRevoked as failure:
            self._count(upstream, found, "dead")
            await self._mark_dead(found, claim, str(failure))
            raise Unavailable("claim_taken_over") from None
        except Unavailable:
            self._count(upstream, found, "unavailable")
            await self._give_back(found, claim)
            raise
        except (OutcomeUnknown, TimeoutError):
            self._count(upstream, found, "unknown")
            await self._unknown(upstream, found, claim)
            raise Unavailable("refresh_outcome_unknown") from None
        self._count(upstream, found, "refreshed")
        stored = await self._durably(lambda: self._claims.swap(found, claim, tokens))
        if stored is not None:
            return stored
        # A sign-in or a revocation came first, and what it left is what counts.
        return await self._durably(lambda: self._latest(found))

    async def _ask(self, upstream: Upstream, found: Connection) -> UpstreamTokens:
        assert found.tokens.refresh_token is not None
        with self._metrics.refresh_seconds.labels(upstream.name).time():
            async with asyncio.timeout(FLIGHT_SECONDS):
                return await upstream.refresh(
                    found.tokens.refresh_token, subject=found.upstream_subject
                )

    async def _unknown(self, upstream: Upstream, found: Connection, claim: str) -> None:
        if upstream.rotates_refresh_tokens and not upstream.reuse_grace_seconds:
            await self._mark_dead(found, claim, "refresh_outcome_unknown")
        await self._durably(lambda: self._claims.mark_uncertain(found, claim))

    async def _give_back(self, found: Connection, claim: str) -> None:
        await self._durably(lambda: self._claims.release_claim(found, claim))

    async def _latest(self, found: Connection) -> Connection:
        latest = await self._connections.get(found.key)
        if latest is None:
            raise GrantRevoked("connection_gone")
        return latest

    async def _mark_dead(self, found: Connection, claim: str, reason: str) -> None:
        """Give the refresh token up for good and raise GrantRevoked, if nobody came before us."""
        if await self._durably(lambda: self._claims.mark_dead(found, claim)):
            _log.warning("connection_dead", upstream=found.key.upstream, reason=reason)
            raise GrantRevoked(reason)

    def _count(self, upstream: Upstream, found: Connection, result: str) -> None:
        self._metrics.refreshes.labels(upstream.name, result).inc()
        now, key = self._clock(), (found.key, found.generation)
        if result in ("unavailable", "unknown"):
            self._breaker.failed(upstream.name, now)
            self._each.failed(key, now)
        else:
            self._breaker.succeeded(upstream.name)
            # Generations begin again at 1 when a connection is purged and the user comes back.
            self._each.succeeded(key)

    async def _durably(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write what an upstream call came to, again and again while storage is down.

        What is not recorded here costs a connection, so it ends with the process only.
        """
        pauses, hurried = iter(_STORE_PAUSES), 0
        while True:
            try:
                return await write()
            except StorageUnavailable:
                hurried += self._hurried
                if hurried > _HURRIED_STORES:
                    raise
            await asyncio.sleep(next(pauses, _MAX_STORE_PAUSE_SECONDS))


def _left_behind(upstream: Upstream, now: int) -> StaleClaimRule:
    if not upstream.rotates_refresh_tokens:
        return StaleClaimRule(claimed_before=now - LEASE_SECONDS)
    if upstream.reuse_grace_seconds:
        return StaleClaimRule(
            claimed_before=now - _GRACE_LEASE_SECONDS,
            first_claimed_after=now - upstream.reuse_grace_seconds + _GRACE_MARGIN_SECONDS,
        )
    return StaleClaimRule()
