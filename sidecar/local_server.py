"""The server on loopback: what it allows a caller, and how long."""

from collections.abc import Callable
from typing import Final

from chassis.clock import Clock
from chassis.http1.limits import Limits
from chassis.http1.server import Server
from sidecar.local_api import LocalApi
from sidecar.timeouts import Timeouts
from sidecar.token_request import MAX_BODY_BYTES

MAX_CONNECTIONS: Final = 512

_HEAD_BYTES: Final = 16 * 1024  # a JWT of 8 KiB, and room to refuse a longer one in words
_LINGER_SECONDS: Final = 0.5  # SIGTERM leaves us two


def local_server(
    api: LocalApi,
    *,
    timeouts: Timeouts,
    wall: Clock,
    on_drain: Callable[[], object],
    max_connections: int = MAX_CONNECTIONS,
) -> Server:
    """A server that answers with `api`; `wall` is Unix time."""
    limits = Limits(
        head_bytes=_HEAD_BYTES,
        body_bytes=MAX_BODY_BYTES,
        connections=max_connections,
        head_seconds=timeouts.head,
        body_seconds=timeouts.body,
        linger_seconds=_LINGER_SECONDS,
    )
    # A whole URI as target is a mark of a forged request: the API refuses it in its own words.
    return Server(
        api.answer,
        limits=limits,
        failed=api.failed,
        absolute_form=True,
        wall=wall,
        on_drain=on_drain,
    )
