"""An API wants a scope that its token lacks: what the authserver says to that.

Asked is only for scopes that the operator lets users be asked for.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from chassis.http1.streamed_response import StreamedResponse
from sidecar.attach.call import AttachCall, PreparedCall
from sidecar.cached_token import CachedToken
from sidecar.errors import INSUFFICIENT_SCOPE, ApiError
from sidecar.missing_scope import FORBIDDEN, missing_scope
from sidecar.token_request import TokenRequest

Obtain = Callable[[str, TokenRequest], Coroutine[Any, Any, CachedToken | ApiError]]


class StepUp:
    """`obtain` is the token source's."""

    def __init__(self, obtain: Obtain) -> None:
        self._obtain = obtain

    @staticmethod
    def concerns(prepared: PreparedCall, status: int) -> bool:
        """Whether an answer with this status may say that a scope is missing."""
        rule = prepared.api.missing_scope
        return rule is not None and (status == FORBIDDEN or _reads_body(prepared, status))

    @staticmethod
    def reads_body(prepared: PreparedCall, answer: StreamedResponse, method: str) -> bool:
        """Whether it is the body that may say so."""
        media_type = (answer.headers.get("content-type") or "").partition(";")[0]
        return (
            _reads_body(prepared, answer.status)
            and method != "HEAD"
            and media_type.strip().lower() == "application/json"
        )

    async def outcome(
        self, call: AttachCall, prepared: PreparedCall, answer: StreamedResponse, body: bytes | None
    ) -> CachedToken | ApiError | None:
        """A token that has the scopes, or the refusal for the caller; None: pass the answer on."""
        rule, token = prepared.api.missing_scope, prepared.token
        if rule is None:
            return None
        missing = missing_scope(rule, answer.status, answer.headers, body, token.scopes)
        if missing is None:
            return None
        outcome = await self._obtain(
            call.unverified_jwt, TokenRequest(call.upstream, missing_scope=missing)
        )
        if isinstance(outcome, CachedToken):
            # Granted already: memory may hold the token of before. Else the API has other reasons.
            return outcome if outcome.fingerprint != token.fingerprint else None
        return outcome if outcome.error == INSUFFICIENT_SCOPE.error else None


def _reads_body(prepared: PreparedCall, status: int) -> bool:
    rule = prepared.api.missing_scope
    return rule is not None and rule.members is not None and rule.members.status == status
