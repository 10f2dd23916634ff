"""The ops listener of processes that run on aiohttp."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from chassis import probes
from chassis.anonymous_server import AnonymousServer
from chassis.probes import Readiness

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def ops_handler(readiness: Readiness, registry: CollectorRegistry) -> Handler:
    """The ops listener's low-level handler, for `aiohttp.web.Server`."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        status, headers, body = probes.answer(request.method, request.path, readiness, registry)
        return web.Response(status=status, headers=headers, body=body)

    return handle


def ops_server(readiness: Readiness, registry: CollectorRegistry) -> web.Server:
    """The ops listener's server."""
    return AnonymousServer(ops_handler(readiness, registry), access_log=None)
