"""What the ops listener of every process answers: /healthz, /readyz and /metrics, and no secret.

Answers are yes or no; what is missing is said in the log, not to whoever asks. This module knows
no HTTP server: `http1_probes` serves it.
"""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from chassis import metrics_text
from chassis.logs import Log
from chassis.metric_families import Collector

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_log = Log("probes")

# Prometheus buckets of every duration we measure: 0.5 ms to 5 s.
DURATION_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip

_JSON: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}


class Answer(NamedTuple):
    """A response of the ops listener."""

    status: int
    headers: dict[str, str]
    body: bytes


class Readiness:
    """The named conditions a process waits for; it is ready while none of them is missing."""

    def __init__(self, *conditions: str) -> None:
        self._missing = set(conditions)

    @property
    def ready(self) -> bool:
        return not self._missing

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(sorted(self._missing))

    def satisfy(self, condition: str) -> None:
        if condition in self._missing:
            self._missing.discard(condition)
            if self.ready:
                _log.info("ready")

    def clear(self, condition: str) -> None:
        if condition not in self._missing:
            self._missing.add(condition)
            _log.warning("not_ready", missing=self.missing)


def new_registry() -> "CollectorRegistry":
    """A registry of this process alone, with its memory, CPU and file descriptors."""
    from prometheus_client import CollectorRegistry, ProcessCollector  # not the sidecar

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


Documents = Mapping[str, Callable[[], object]]
"""What else the ops listener answers: by path, a function that gives a value to write as JSON."""

NONE: Final[Documents] = {}


def answer(
    method: str,
    path: str,
    readiness: Readiness,
    registry: Collector,
    documents: Documents = NONE,
) -> Answer:
    """The response to a request; `path` is without its query."""
    if method not in ("GET", "HEAD"):
        return Answer(405, _TEXT, b"method not allowed\n")
    match path:
        case "/healthz":
            return Answer(200, _TEXT, b"ok\n")
        case "/readyz" if readiness.ready:
            return Answer(200, _TEXT, b"ok\n")
        case "/readyz":
            return Answer(503, _TEXT, b"not ready\n")
        case "/metrics":
            return Answer(
                200, {"Content-Type": metrics_text.CONTENT_TYPE}, metrics_text.render(registry)
            )
        case _ if path in documents:
            return Answer(200, _JSON, json.dumps(documents[path]()).encode())
        case _:
            return Answer(404, _TEXT, b"not found\n")
