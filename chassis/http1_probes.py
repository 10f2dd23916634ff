"""The ops listener of processes that run on `chassis.http1`."""

from typing import Final

from chassis import probes
from chassis.http1.limits import Limits
from chassis.http1.request import Request
from chassis.http1.response import Response, ResponseHead
from chassis.http1.server import Server
from chassis.metric_families import Collector
from chassis.probes import Readiness

# Other pods reach this listener: no one of them may take the connections that probes need.
_LIMITS: Final = Limits(body_bytes=0, connections_per_source=64)


def ops_server(
    readiness: Readiness, registry: Collector, documents: probes.Documents = probes.NONE
) -> Server:
    """The ops listener's server; `documents` as in `probes.answer`."""

    def handle(request: Request) -> Response:
        path = request.target.partition("?")[0]
        status, headers, body = probes.answer(request.method, path, readiness, registry, documents)
        return Response(ResponseHead(status, headers.items()), body)

    return Server(handle, limits=_LIMITS)
