"""The admission listener: one AdmissionReview in, one response out. The only HTTP of this package.

Anyone who reaches the port may post. So a response holds only what follows from the review and from
configuration that every injected pod shows anyway. Nothing is written or called.
"""

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter
from typing import Final
from urllib.parse import parse_qs

import msgspec

from chassis.http1.continuation import Outcome
from chassis.http1.errors import BodyTooSlow
from chassis.http1.limits import Limits
from chassis.http1.request import Request, media_type
from chassis.http1.response import Response, ResponseHead
from chassis.http1.server import Server
from chassis.logs import Log
from chassis.probes import Readiness
from webhook import admission_review, pod_view, review_turn
from webhook.evaluate import AdmissionResult, evaluate
from webhook.metrics import Metrics
from webhook.reasons import Reason
from webhook.review_turn import ReviewTurn
from webhook.settings import Settings

_log = Log("admission")

MAX_BODY: Final = 8 * 1024 * 1024
# Longer than the API server keeps an idle connection (90 s), so that it is the one to close:
# a request that meets a closing connection is a failed admission.
KEEPALIVE_SECONDS: Final = 120.0

# Reviews above this size are read a few at a time, so that their sum stays bounded.
_LARGE_BODY: Final = 512 * 1024
_LARGE_AT_ONCE: Final = 8

_DEFAULT_TIMEOUT: Final = 10.0
_MAX_TIMEOUT: Final = 30.0
_TIMEOUT: Final = re.compile(
    r"(?:(\d{1,4})m)?(?:(\d{1,6}(?:\.\d{1,9})?)s)?(?:(\d{1,7})ms)?", re.ASCII
)

LIMITS: Final = Limits(
    body_bytes=MAX_BODY,
    connections=4000,
    # An API server may open a connection and have no request for it yet: also an idle one.
    head_seconds=KEEPALIVE_SECONDS,
    body_seconds=_MAX_TIMEOUT,
    idle_seconds=KEEPALIVE_SECONDS,
)

PATHS: Final = {"/mutate": False, "/mutate/namespace": True}  # value: the namespace opted in


class _Arrived(msgspec.Struct, frozen=True):
    """A review as it came, with the time by `perf_counter`."""

    body: bytes
    opted_in: bool
    at: float

    def __repr__(self) -> str:
        return "<_Arrived>"  # a pod may have secrets in its variables


class _Decided(msgspec.Struct, frozen=True):
    """What the response and the log line need of a review. The pod itself is freed before."""

    size: int
    arrived_at: float
    uid: str
    namespace: str
    pod: str
    user: str
    dry_run: bool
    verdict: AdmissionResult


class _Refused(Exception):
    """The request is not an admission review that we answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def server(
    settings: Callable[[], Settings],
    readiness: Readiness,
    metrics: Metrics,
    *,
    limits: Limits = LIMITS,
) -> Server:
    """The admission listener. `settings` is read anew for every review."""
    return Server(_Admission(settings, readiness, metrics).answer, limits=limits)


class _Admission:
    """Answers API servers."""

    def __init__(
        self, settings: Callable[[], Settings], readiness: Readiness, metrics: Metrics
    ) -> None:
        self._settings, self._readiness, self._metrics = settings, readiness, metrics
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._turn = ReviewTurn(self._decide, self._tell)

    def answer(self, request: Request) -> Outcome:
        """The handler of every request. A review that came in one piece is answered this turn."""
        try:
            opted_in, seconds = _expected(request)
        except _Refused as refused:
            return self._refuse(refused)
        body = request.body
        if body is None:
            return self._answer_when_sent(request, opted_in, seconds)
        arrived = _Arrived(body, opted_in, perf_counter())
        if len(body) > review_turn.MAX_BODY:
            return self._answer_at_once(arrived)
        request.body = b""  # else it would be held until the answer
        return self._turn.add(request, arrived)

    async def _answer_when_sent(self, request: Request, opted_in: bool, seconds: float) -> Response:
        """The answer to a review of which more is to come, within the caller's own deadline."""
        try:
            async with asyncio.timeout(seconds):
                if (request.head.content_length or 0) <= _LARGE_BODY:
                    body = await request.read()
                else:
                    async with self._large:
                        body = await request.read()
        except (TimeoutError, BodyTooSlow):
            return self._refuse(_Refused(408, "the review did not arrive in time"))
        # No wait between here and the answer: at most `_LARGE_AT_ONCE` large ones are in memory.
        return self._answer_at_once(_Arrived(body, opted_in, perf_counter()))

    def _answer_at_once(self, arrived: _Arrived) -> Response:
        decided = self._decide(arrived)
        return decided if isinstance(decided, Response) else self._tell(decided)

    def _decide(self, arrived: _Arrived) -> _Decided | Response:
        try:
            return _decided(arrived, self._settings, self._metrics)
        except _Refused as refused:
            return self._refuse(refused)

    def _tell(self, decided: _Decided) -> Response:
        """Tell the log, the metrics and the API server."""
        answer = _answered(decided, self._metrics)
        self._metrics.body_bytes.observe(decided.size)
        self._metrics.duration.observe(perf_counter() - decided.arrived_at)
        return self._response(_OK, answer)

    def _refuse(self, refused: _Refused) -> Response:
        return self._response(_head_of(refused.status), f"{refused.text}\n".encode())

    def _response(self, head: ResponseHead, body: bytes) -> Response:
        # While draining, the API server must send its next request to another replica.
        return Response(head, body, close=not self._readiness.ready)


_OK: Final = ResponseHead(200, (("Content-Type", "application/json"),))


@lru_cache(maxsize=16)
def _head_of(status: int) -> ResponseHead:
    return ResponseHead(status, (("Content-Type", "text/plain; charset=utf-8"),))


def _expected(request: Request) -> tuple[bool, float]:
    """Whether the namespace opted in, and the caller's deadline in seconds.

    Raises _Refused for everything that cannot be a review of ours by its head.
    """
    opted_in, timeout = _target(request.target)
    if opted_in is None:
        raise _Refused(404, "not found")
    if request.method != "POST":
        raise _Refused(405, "method not allowed")
    if media_type(request.headers) != "application/json":
        raise _Refused(415, "the content type must be application/json")
    length = request.head.content_length
    if length is None:
        raise _Refused(411, "the length is missing")
    if length > MAX_BODY:
        raise _Refused(413, f"the review is larger than {MAX_BODY} bytes")
    return opted_in, timeout


@lru_cache(maxsize=32)
def _target(target: str) -> tuple[bool | None, float]:
    """Whether the namespace opted in, by the path (None: no path of ours), and the timeout.

    An API server asks for the same few targets for ever.
    """
    path, _, query = target.partition("?")
    return PATHS.get(path), _timeout(parse_qs(query[:256]).get("timeout", [""])[0])


def _timeout(text: str) -> float:
    """Seconds in a Go duration such as 5s, 1m0s or 4.5s; the API server's default without one."""
    match = _TIMEOUT.fullmatch(text)
    if match is None or not any(match.groups()):
        return _DEFAULT_TIMEOUT
    minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    return min(minutes * 60 + seconds + milliseconds / 1000, _MAX_TIMEOUT)


def _decided(arrived: _Arrived, settings: Callable[[], Settings], metrics: Metrics) -> _Decided:
    body, opted_in = arrived.body, arrived.opted_in
    try:
        request = admission_review.parse(body)
    except admission_review.InvalidReview as no_review:
        raise _Refused(400, str(no_review)) from None
    name = request.name
    try:
        if admission_review.creates_a_pod(request):
            pod = admission_review.pod(request, body)
            if not name and pod.metadata is not None:
                name = pod.metadata.generateName or ""
            verdict = evaluate(pod, request.namespace, settings(), namespace_opted_in=opted_in)
        else:
            verdict = AdmissionResult("skipped", Reason.NOT_A_POD_CREATION)
    except pod_view.Malformed as malformed:
        verdict = AdmissionResult(
            "denied", Reason.MALFORMED, message=f"tokenward: {malformed}"[:1024]
        )
    except Exception as error:  # noqa: BLE001 - the edge: a pod must get an answer
        _log.failure("failed", error, uid=request.uid)
        metrics.decisions("error", Reason.FAILED).inc()
        raise _Refused(500, "failed") from None
    return _Decided(
        len(body),
        arrived.at,
        request.uid,
        request.namespace,
        name,
        request.user.username,
        bool(request.dry_run),
        verdict,
    )


def _answered(decided: _Decided, metrics: Metrics) -> bytes:
    verdict = decided.verdict
    metrics.decisions(verdict.decision, verdict.reason).inc()
    _log.info(
        "decided",
        decision=verdict.decision,
        reason=verdict.reason.value,
        namespace=decided.namespace,
        pod=decided.pod,
        uid=decided.uid,
        user=decided.user,
        dry_run=decided.dry_run,
    )
    return admission_review.answer(decided.uid, verdict)
