"""Where every door gets its tokens: what a JWT says of itself, then memory, then the authserver."""

from chassis.clock import Clock
from sidecar.broker import Broker, Key
from sidecar.cached_token import CachedToken
from sidecar.clocks import Clocks
from sidecar.errors import INVALID_TOKEN, ApiError
from sidecar.metrics import Metrics
from sidecar.mismatch_log import MismatchLog
from sidecar.pending_challenges import PendingChallenges
from sidecar.token_request import TokenRequest, has_jwt_shape
from sidecar.unverified_jwt import ExpectedClaims


class TokenSource:
    """One memory and one set of exchanges, whichever door is asked.

    `pending` hears of challenges for a missing scope, where a gateway passes them on.
    """

    def __init__(
        self,
        broker: Broker,
        expected: ExpectedClaims,
        clocks: Clocks,
        metrics: Metrics,
        *,
        now: Clock,
        pending: PendingChallenges | None = None,
    ) -> None:
        self._broker, self._expected = broker, expected
        self._clocks, self._metrics, self._now = clocks, metrics, now
        self._mismatches = MismatchLog()
        self._pending = pending

    def cached(self, jwt_hash: bytes, token_request: TokenRequest) -> CachedToken | None:
        """The token in memory that answers the request for a JWT of that hash, if there is one."""
        cached_token = self._broker.cached(jwt_hash, token_request)
        if cached_token is not None:
            self._metrics.cache("hit")
        return cached_token

    def held(self, key: Key) -> CachedToken | None:
        """The token in memory under the key of a request, if there is one."""
        cached_token = self._broker.held(key)
        if cached_token is not None:
            self._metrics.cache("hit")
        return cached_token

    async def obtain(
        self, unverified_jwt: str, token_request: TokenRequest
    ) -> CachedToken | ApiError:
        """Ask the authserver, once for all callers that ask the same at this moment."""
        # Only here: what memory knows by its hash was accepted before, so it had the shape.
        if not has_jwt_shape(unverified_jwt):
            return INVALID_TOKEN.with_reason("not_a_jwt")
        problem = self._expected.problem_of(unverified_jwt, self._clocks.times())
        if problem is not None:
            self._metrics.refused_jwt(problem)
            self._mismatches.report(problem, self._now())
            return INVALID_TOKEN.with_reason(problem)
        outcome = await self._broker.obtain(unverified_jwt, token_request)
        pending = self._pending if token_request.missing_scope is not None else None
        if pending is not None and isinstance(outcome, ApiError) and outcome.scope:
            pending.put(unverified_jwt, outcome)
        return outcome
