"""Present a refresh token upstream under a durable claim, by one holder at a time.

- stored: the answer came and is the next generation; the claim is gone with the old one.
- given back: the upstream certainly did not act; anybody may try again after a pause.
- unknown: nobody knows whether the upstream acted. The token is presented again, after a pause and
  not while the stored access token still serves, until the upstream says yes or no.
- dead: the upstream said that the grant is over.
A process that dies leaves its claim behind. After a lease, which no flight outlasts, another takes
it over, and the outcome counts as unknown.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from msgspec.structs import replace

from authserver.connections.backoff import Backoff
from authserver.connections.freshness import lasts
from authserver.connections.registration_binding import RegistrationBinding
from authserver.connections.timeouts import RefreshTimeouts
from authserver.connections.upstream_health import Place, UpstreamHealth
from authserver.connections.upstream_revocation import UpstreamRevoker
from authserver.handles import NewHandle
from authserver.metrics import Metrics
from authserver.storage.claim_rows import Claim, ClaimRows
from authserver.storage.connection_rows import is_another_grant
from authserver.storage.connections import Connections
from authserver.storage.contract import StorageUnavailable
from authserver.storage.records import Connection, ConnectionKey, UpstreamTokens
from authserver.upstream.contract import (
    GrantRevoked,
    OutcomeUnknown,
    RefreshRequest,
    Unavailable,
    Upstream,
)
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("refresh_claims")

_T = TypeVar("_T")

# How new tokens are asked for under a claim.
Ask = Callable[[Upstream, RefreshRequest], Awaitable[UpstreamTokens]]


async def _refreshed(upstream: Upstream, request: RefreshRequest) -> UpstreamTokens:
    return await upstream.refresh(request)


# A grace is counted by the upstream's clock, and our request takes its time to get there.
_GRACE_MARGIN_SECONDS: Final = 5
_HURRIED_STORES: Final = 15


class ClaimedRefresh:
    def __init__(
        self,
        connections: Connections,
        claims: ClaimRows,
        binding: RegistrationBinding,
        revoker: UpstreamRevoker,
        metrics: Metrics,
        clock: Clock,
        new_handle: NewHandle,
        timeouts: RefreshTimeouts,
    ) -> None:
        self._connections, self._claims = connections, claims
        self._binding, self._revoker = binding, revoker
        self._metrics, self._clock, self._new_handle = metrics, clock, new_handle
        self._timeouts = timeouts
        self.health = UpstreamHealth(timeouts.slow_call, clock, _loop_time)
        self._each = Backoff(threshold=2, first=1, longest=60)
        self._uncertain: dict[tuple[ConnectionKey, int], asyncio.Task[None]] = {}
        self._hurried = False

    def stop_retrying(self) -> None:
        """The process is about to end: a database that is down is waited for no longer."""
        self._hurried = True

    async def drain(self) -> None:
        """Wait until no claim of ours is in doubt; for the end of the process and for tests."""
        await asyncio.gather(*self._uncertain.values(), return_exceptions=True)

    async def next_generation(
        self, connection: Connection, *, rejected: bool = False, ask: Ask = _refreshed
    ) -> Connection:
        """Refresh `connection`, or adopt what another process made of it.

        `rejected`: its access token does not serve, whatever is left of its time. `ask` gets the
        new tokens in another way than a refresh; it raises as `Upstream.refresh` does. Raises
        GrantRevoked, Unavailable or StorageUnavailable.
        """
        upstream = self._binding.upstream_of(connection)
        if upstream is None:
            raise Unavailable("upstream_registration_changed")
        key = (connection.key, connection.generation)
        if key in self._uncertain:
            raise StorageUnavailable("claim_in_doubt")
        if connection.first_claimed_at is not None and connection.refresh_claim is None:
            self._check_repeatable(upstream, connection, rejected=rejected)
        with await self._place(upstream, connection) as place:
            if not self._each.allow(key, self._clock()):
                raise Unavailable("connection_backing_off")
            claim = await self._take(connection)
            if claim is not None:
                return await self._present(
                    upstream, connection, claim, place, rejected=rejected, ask=ask
                )
        return await self._adopt(upstream, connection, rejected=rejected, ask=ask)

    async def _place(self, upstream: Upstream, connection: Connection) -> Place:
        """Taken before the claim: an upstream in trouble gets one of all who ask at one moment."""
        fate_unknown = connection.first_claimed_at is not None
        return await self.health.place(upstream.name, fate_unknown=fate_unknown)

    def _check_repeatable(
        self, upstream: Upstream, connection: Connection, *, rejected: bool
    ) -> None:
        """Whether a token of unknown fate may be presented again just now. Raises Unavailable.

        Reuse detection would also end an access token that still serves.
        """
        now = self._clock()
        if (
            upstream.rotates_refresh_tokens
            and not rejected
            and lasts(connection.tokens, now, 0)
            and not _in_grace(upstream, connection.first_claimed_at, now)
        ):
            raise Unavailable("waits_for_the_access_token_to_end")

    async def _take(self, connection: Connection) -> Claim | None:
        """The claim we took; None where somebody else holds one."""
        now, handle = int(self._clock()), self._new_handle()
        overdue = now - self._timeouts.lease
        try:
            return await self._claims.claim(connection, handle, now, overdue_before=overdue)
        except StorageUnavailable:
            self._undo(connection, handle)
            raise

    def _undo(self, connection: Connection, handle: str) -> None:
        """Undo a claim that may have been recorded all the same: it would count as left behind.

        At once and not with the next call, which may be long in coming.
        """
        key = (connection.key, connection.generation)
        task = asyncio.create_task(self._give_back(connection, handle))
        self._uncertain[key] = task
        task.add_done_callback(lambda _: self._uncertain.pop(key))

    async def _adopt(
        self, upstream: Upstream, connection: Connection, *, rejected: bool, ask: Ask
    ) -> Connection:
        """What another holder's claim comes to; ours where that holder is gone."""
        while True:
            latest = await self._latest(connection)
            if latest.generation != connection.generation:
                return latest
            if latest.dead:
                raise GrantRevoked("connection_needs_sign_in")
            if latest.refresh_claim is None:
                # Tried a moment ago, in vain: the same pause as if it had been us.
                self._each.failed((connection.key, connection.generation), self._clock())
                raise Unavailable("another_tried_in_vain")
            if self._is_left_behind(latest):
                with await self._place(upstream, latest) as place:
                    claim = await self._take(latest)
                    if claim is not None:
                        return await self._present(
                            upstream, latest, claim, place, rejected=rejected, ask=ask
                        )
            await asyncio.sleep(self._timeouts.poll)

    def _is_left_behind(self, connection: Connection) -> bool:
        """Whether nobody is behind the claim any more, as `ClaimRows.claim` judges it."""
        claimed_at = connection.refresh_claimed_at
        return claimed_at is None or claimed_at < int(self._clock()) - self._timeouts.lease

    async def _present(
        self,
        upstream: Upstream,
        connection: Connection,
        claim: Claim,
        place: Place,
        *,
        rejected: bool,
        ask: Ask,
    ) -> Connection:
        await self._check_claim(upstream, connection, claim, rejected=rejected)
        try:
            tokens = await self._ask(upstream, connection, claim, place, ask)
        except GrantRevoked as failure:
            self._answered(upstream, connection, "dead")
            await self._mark_dead(connection, claim, failure.reason)
            raise Unavailable("claim_taken_over") from None
        except Unavailable as failure:
            if place.withheld:
                await self._withheld(upstream, connection, claim, failure)
            else:
                await self._refused(upstream, connection, claim, failure)
            raise
        except (OutcomeUnknown, TimeoutError) as failure:
            await self._unknown(upstream, connection, claim, failure)
            raise Unavailable("refresh_outcome_unknown") from None
        self._answered(upstream, connection, "refreshed")
        registration = upstream.registration
        stored = await self._durably(
            lambda: self._claims.swap(connection, claim.handle, tokens, registration)
        )
        if stored is None:
            return await self._overtaken(
                replace(connection, tokens=tokens, registration=registration)
            )
        if not lasts(stored.tokens, self._clock(), 0):
            self._each.failed((stored.key, stored.generation), self._clock())
        return stored

    async def _overtaken(self, brought: Connection) -> Connection:
        """A sign-in or a revocation came first, and what it left is what counts.

        It did not see the tokens that were `brought` since: they end here.
        """
        latest = await self._durably(lambda: self._connections.get(brought.key))
        if latest is None or is_another_grant(brought, latest):
            await self._durably(lambda: self._revoker.add(brought))
        return self._there(latest)

    async def _check_claim(
        self, upstream: Upstream, connection: Connection, claim: Claim, *, rejected: bool
    ) -> None:
        """What to do under a claim whose token may have been presented before."""
        since = claim.uncertain_since
        if since is None or not upstream.rotates_refresh_tokens:
            return
        now = self._clock()
        if _in_grace(upstream, since, now):
            return
        if not upstream.repeats_uncertain_refresh:
            await self._mark_dead(connection, claim, "refresh_outcome_unknown")
            raise Unavailable("claim_taken_over")
        if not rejected and lasts(connection.tokens, now, 0):
            await self._durably(lambda: self._claims.mark_uncertain(connection, claim.handle))
            raise Unavailable("waits_for_the_access_token_to_end")

    async def _ask(
        self, upstream: Upstream, connection: Connection, claim: Claim, place: Place, ask: Ask
    ) -> UpstreamTokens:
        """What the upstream answers. The place is free when it has; nobody runs in between."""
        request = RefreshRequest(
            connection.tokens,
            connection.upstream_subject,
            lambda: self._may_send(connection, claim, place),
        )
        place.call()
        with place, self._metrics.refresh_seconds.labels(upstream.name).time():
            async with asyncio.timeout(self._timeouts.flight):
                return await ask(upstream, request)

    async def _may_send(self, connection: Connection, claim: Claim, place: Place) -> bool:
        """Whether our claim stands, enough of its lease is left for the flight, and the upstream
        is not one that gets a single call just now.
        """
        try:
            claimed_at = await self._claims.claimed_at(connection, claim.handle)
        except StorageUnavailable:
            return place.withhold()
        if claimed_at is None:
            return place.withhold()
        left = claimed_at + self._timeouts.lease - self._clock()
        if left < self._timeouts.flight:
            return place.withhold()
        return place.may_send()

    async def _withheld(
        self, upstream: Upstream, connection: Connection, claim: Claim, failure: Unavailable
    ) -> None:
        """We did not send the token: that says nothing of the upstream, and costs no pause."""
        _log.warning("refresh_failed", **_facts(failure, upstream))
        await self._durably(lambda: self._claims.release_claim(connection, claim.handle))

    async def _refused(
        self, upstream: Upstream, connection: Connection, claim: Claim, failure: Unavailable
    ) -> None:
        now, key = self._clock(), (connection.key, connection.generation)
        self._metrics.refreshes.labels(upstream.name, "unavailable").inc()
        self._each.failed(key, now)
        if failure.refused:
            self.health.answered(upstream.name, success=False)
        else:
            self.health.failed(upstream.name, failure.retry_after)
        _log.warning("refresh_failed", **_facts(failure, upstream))
        refused_at = int(now) if failure.refused else None
        await self._durably(
            lambda: self._claims.release_claim(connection, claim.handle, refused_at=refused_at)
        )

    async def _unknown(
        self,
        upstream: Upstream,
        connection: Connection,
        claim: Claim,
        failure: OutcomeUnknown | TimeoutError,
    ) -> None:
        now = self._clock()
        self._metrics.refreshes.labels(upstream.name, "unknown").inc()
        self._each.failed((connection.key, connection.generation), now)
        self.health.failed(upstream.name, unknown=True)
        _log.warning("refresh_outcome_unknown", **_facts(failure, upstream))
        if (
            upstream.rotates_refresh_tokens
            and not upstream.repeats_uncertain_refresh
            and not upstream.reuse_grace_seconds
        ):
            await self._mark_dead(connection, claim, "refresh_outcome_unknown")
        await self._durably(lambda: self._claims.mark_uncertain(connection, claim.handle))

    async def _give_back(self, connection: Connection, handle: str) -> None:
        await self._durably(lambda: self._claims.release_claim(connection, handle))

    async def _latest(self, connection: Connection) -> Connection:
        return self._there(await self._connections.get(connection.key))

    @staticmethod
    def _there(latest: Connection | None) -> Connection:
        if latest is None:
            raise GrantRevoked("connection_gone")
        return latest

    async def _mark_dead(self, connection: Connection, claim: Claim, reason: str) -> None:
        """Give the refresh token up for good and raise GrantRevoked, if nobody came before us."""
        if await self._durably(lambda: self._claims.mark_dead(connection, claim.handle)):
            key = connection.key
            _log.warning(
                "connection_dead", upstream=key.upstream, workload=str(key.owner), reason=reason
            )
            raise GrantRevoked(reason)

    def _answered(self, upstream: Upstream, connection: Connection, result: str) -> None:
        self._metrics.refreshes.labels(upstream.name, result).inc()
        self.health.answered(upstream.name, success=result == "refreshed")
        # Generations begin again at 1 when a connection is purged and the user comes back.
        self._each.succeeded((connection.key, connection.generation))

    async def _durably(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write what an upstream call came to, again and again while storage is down.

        What is not recorded here costs a connection, so it ends with the process only.
        """
        pauses, hurried = iter(self._timeouts.store_pauses), 0
        while True:
            try:
                return await write()
            except StorageUnavailable:
                hurried += self._hurried
                if hurried > _HURRIED_STORES:
                    raise
            await asyncio.sleep(next(pauses, self._timeouts.max_store_pause))


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _in_grace(upstream: Upstream, since: int | None, now: float) -> bool:
    """Whether the upstream promises to take a token again that was presented then."""
    grace = upstream.reuse_grace_seconds - _GRACE_MARGIN_SECONDS
    return since is not None and now - since <= grace


def _facts(failure: Exception, upstream: Upstream) -> dict[str, str]:
    facts = getattr(failure, "facts", {"reason": "flight_took_too_long"})
    return {**facts, "upstream": upstream.name}
