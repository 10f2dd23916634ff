"""What the gateway answers by itself: refusals, the documents, preflights."""

from collections.abc import Iterable
from typing import Final

from chassis.clock import Clock
from chassis.http1.errors import Failure
from chassis.http1.request import Headers
from chassis.http1.response import Response, ResponseHead
from chassis.logs import Log
from chassis.request_ids import caller_request_id, new_request_id
from sidecar.errors import INVALID_REQUEST, NO_TOKEN, TEMPORARILY_UNAVAILABLE, ApiError
from sidecar.gateway.cors import Origins
from sidecar.gateway.routing import Answer
from sidecar.metrics import Metrics
from sidecar.protected_resource import ProtectedResource
from sidecar.refusals import refusal_response

_log = Log("gateway")

DOOR: Final = "gateway"


class OwnAnswers:
    """Renders and counts them; `now` is monotonic, in seconds."""

    def __init__(
        self, resource: ProtectedResource, origins: Origins, metrics: Metrics, now: Clock
    ) -> None:
        self._resource, self._origins = resource, origins
        self._metrics, self._now = metrics, now

    def answer(self, headers: Headers, answer: Answer, started: float) -> Response:
        """An answer that needs no token."""
        self.count("ok", started)
        fields = [*answer.fields.items(), *self._origins.fields(headers)]
        return Response(ResponseHead(answer.status, fields), answer.body)

    def refuse(
        self, headers: Headers, refusal: ApiError, started: float, request_id: str = ""
    ) -> Response:
        """The answer to a request that is not forwarded, or whose response is not relayed."""
        self.count(refusal.error, started)
        if not request_id:
            request_id = caller_request_id(headers)
        return self._render(
            refusal, request_id or new_request_id(), refusal.status, self._origins.fields(headers)
        )

    def failed(self, failure: Failure) -> Response:
        """The answer where there is no other: to bytes that are no request, or after a bug."""
        refusal, status = INVALID_REQUEST.with_reason(failure.reason), failure.status
        if failure.bug is not None:
            _log.failure("unexpected_failure", failure.bug)
            refusal, status = TEMPORARILY_UNAVAILABLE.with_reason("unexpected_failure"), 503
        elif failure.status == 503:
            refusal = TEMPORARILY_UNAVAILABLE.with_reason("shutting_down")
        self.count(refusal.error, self._now())
        return self._render(refusal, new_request_id(), status, ())

    def count(self, result: str, started: float) -> None:
        self._metrics.answered(result, self._now() - started, DOOR)

    def _render(
        self, refusal: ApiError, request_id: str, status: int, fields: Iterable[tuple[str, str]]
    ) -> Response:
        # A client that has no token yet begins this way: no fault of anybody.
        say = _log.debug if refusal == NO_TOKEN else _log.info
        say("refused", error=refusal.error, reason=refusal.reason, request_id=request_id)
        return refusal_response(refusal, request_id, self._resource, status=status, fields=fields)
