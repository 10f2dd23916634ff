"""The ops listener of every process: /healthz, /readyz and /metrics, and nothing secret.

Answers are yes or no; what is missing is said in the log, not to whoever asks.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from chassis.anonymous_server import AnonymousServer
from chassis.logs import Log

_log = Log("probes")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# Prometheus buckets of every duration we measure: 0.5 ms to 5 s.
DURATION_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip


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


def new_registry() -> CollectorRegistry:
    """A registry of this process alone, with its memory, CPU and file descriptors."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def ops_handler(readiness: Readiness, registry: CollectorRegistry) -> Handler:
    """The ops listener's low-level handler, for `aiohttp.web.Server`."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return _text(405, "method not allowed\n")
        match request.path:
            case "/healthz":
                return _text(200, "ok\n")
            case "/readyz" if readiness.ready:
                return _text(200, "ok\n")
            case "/readyz":
                return _text(503, "not ready\n")
            case "/metrics":
                return web.Response(
                    body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
                )
            case _:
                return _text(404, "not found\n")

    return handle


def ops_server(readiness: Readiness, registry: CollectorRegistry) -> web.Server:
    """The ops listener's server."""
    return AnonymousServer(ops_handler(readiness, registry), access_log=None)


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers={"Cache-Control": "no-store"})
