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
from aiohttp import web

from chassis.event_loop import yield_to_ready
from chassis.logs import Log
from chassis.probes import Readiness
from webhook import admission_review, pod_view
from webhook.evaluate import AdmissionResult, evaluate
from webhook.metrics import Metrics
from webhook.reasons import Reason
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

PATHS: Final = {"/mutate": False, "/mutate/namespace": True}  # value: the namespace opted in


class _Decided(msgspec.Struct, frozen=True):
    """What the response and the log line need of a review. The pod itself is freed before."""

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


def server(settings: Callable[[], Settings], readiness: Readiness, metrics: Metrics) -> web.Server:
    """The admission listener. `settings` is read anew for every review."""
    large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            body, opted_in = await _received(request, large)
            size, started = len(body), perf_counter()
            decided = _decided(body, settings, opted_in, metrics)
            # Free the body now. Otherwise all bodies of this event-loop turn stay in memory until
            # their responses are sent.
            del body
            await _yield_if_small(size)
            answer = _answered(decided, metrics)
            metrics.body_bytes.observe(size)
            metrics.duration.observe(perf_counter() - started)
            await _yield_if_small(size)
            response = web.Response(body=answer, content_type="application/json")
        except _Refused as refused:
            response = web.Response(status=refused.status, text=f"{refused.text}\n")
        if not readiness.ready:
            # Draining: the API server must send its next request to another replica.
            response.force_close()
        return response

    return web.Server(
        handle,
        keepalive_timeout=KEEPALIVE_SECONDS,
        access_log=None,
        auto_decompress=False,
    )


async def _received(request: web.BaseRequest, large: asyncio.Semaphore) -> tuple[bytes, bool]:
    """The body, read within the caller's own deadline, and whether the namespace opted in."""
    opted_in, timeout = _target(request.raw_path)
    if opted_in is None:
        raise _Refused(404, "not found")
    if request.method != "POST":
        raise _Refused(405, "method not allowed")
    if request.content_type != "application/json":
        raise _Refused(415, "the content type must be application/json")
    length = request.content_length
    if length is None:
        raise _Refused(411, "the length is missing")
    if length > MAX_BODY:
        raise _Refused(413, f"the review is larger than {MAX_BODY} bytes")
    if request.content.is_eof():  # it came in one piece with the head, as small ones do
        return request.content.read_nowait(), opted_in
    # Not `request.read`: the request would keep the body until its response is sent. aiohttp reads
    # no more than the announced length.
    try:
        async with asyncio.timeout(timeout):
            if length <= _LARGE_BODY:
                return await request.content.read(), opted_in
            async with large:
                return await request.content.read(), opted_in
    except TimeoutError:
        raise _Refused(408, "the review did not arrive in time") from None


async def _yield_if_small(size: int) -> None:
    """Yield to other ready requests after a small review.

    A large review goes on at once, so that at most `_LARGE_AT_ONCE` of them are in memory.
    """
    if size <= _LARGE_BODY:
        await yield_to_ready()


@lru_cache(maxsize=32)
def _target(raw_path: str) -> tuple[bool | None, float]:
    """Whether the namespace opted in, by the path (None: no path of ours), and the timeout.

    An API server asks for the same few targets for ever.
    """
    path, _, query = raw_path.partition("?")
    return PATHS.get(path), _timeout(parse_qs(query[:256]).get("timeout", [""])[0])


def _timeout(text: str) -> float:
    """Seconds in a Go duration such as 5s, 1m0s or 4.5s; the API server's default without one."""
    match = _TIMEOUT.fullmatch(text)
    if match is None or not any(match.groups()):
        return _DEFAULT_TIMEOUT
    minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    return min(minutes * 60 + seconds + milliseconds / 1000, _MAX_TIMEOUT)


def _decided(
    body: bytes, settings: Callable[[], Settings], opted_in: bool, metrics: Metrics
) -> _Decided:
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
