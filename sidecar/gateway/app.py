"""Builds the gateway of one sidecar; the only wiring of this package."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chassis.clock import Clock
from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from chassis.http1.listener import Listener
from chassis.http1.server import Server
from sidecar.clocks import Clocks
from sidecar.gateway.app_port import AppPortCheck
from sidecar.gateway.door import Collaborators, Gateway
from sidecar.gateway.settings import GatewaySettings
from sidecar.gateway.step_up import StepUps
from sidecar.gateway.streams import MAX_PER_POD, Streams
from sidecar.metrics import Metrics
from sidecar.pending_challenges import PendingChallenges
from sidecar.protected_resource import ProtectedResource
from sidecar.timeouts import Timeouts
from sidecar.token_request import TokenRequest
from sidecar.token_source import TokenSource

HEAD_BYTES: Final = 64 * 1024
_BODY_SECONDS: Final = 60.0  # for the next piece of a body
_CONNECT_SECONDS: Final = 3.0
_ABANDON_SECONDS: Final = 1.0
_MAX_CONNECTIONS: Final = 2 * MAX_PER_POD  # idle ones, and those of strangers, beside the streams
# Shorter than any server keeps an idle connection: gunicorn ends one after two seconds.
_IDLE_SECONDS: Final = 1.5


@dataclass(frozen=True)
class GatewayParts:
    """A gateway that is put together and not yet listening."""

    settings: GatewaySettings
    server: Server
    gateway: Gateway
    streams: Streams
    app: Client
    app_port: AppPortCheck | None

    @property
    def listener(self) -> Listener:
        return Listener("gateway", self.settings.host, self.settings.port, self.server)

    def tick(self) -> None:
        """What has to be done every few seconds."""
        self.streams.tick()
        self.gateway.sweep()
        if self.app_port is not None:
            self.app_port.poll()

    def close(self) -> None:
        self.streams.cancel_all()
        self.app.close()
        if self.app_port is not None:
            self.app_port.close()


def build_gateway(
    settings: GatewaySettings,
    source: TokenSource,
    pending: PendingChallenges,
    resource: ProtectedResource,
    metrics: Metrics,
    clocks: Clocks,
    *,
    now: Clock,
    wall: Clock,
    timeouts: Timeouts,
    feed_heard: Callable[[], float | None] = lambda: None,
) -> GatewayParts:
    """`now` is monotonic and `wall` Unix time. `feed_heard` is as in `Streams`."""
    token_request = TokenRequest(settings.upstream)
    streams = Streams(
        lambda accepted_jwt: source.obtain(accepted_jwt, token_request),
        now=now,
        times=clocks.times,
        stream_max=settings.stream_max,
        feed_heard=feed_heard,
    )
    app = Client(
        Host("127.0.0.1", settings.target),
        None,
        limits=Limits(
            head_bytes=HEAD_BYTES,
            fields=256,
            connections=MAX_PER_POD + 64,
            idle_seconds=_IDLE_SECONDS,
            write_seconds=_BODY_SECONDS,
        ),
        connect_seconds=_CONNECT_SECONDS,
    )
    app_port = AppPortCheck(settings.target, now=now) if settings.checks_app_port else None
    step_ups = StepUps(source.obtain, pending, resource, token_request, timeouts.first_event)
    gateway = Gateway(
        settings, resource, Collaborators(source, app, streams, step_ups, app_port, metrics, now)
    )
    limits = Limits(
        head_bytes=HEAD_BYTES,
        target_bytes=HEAD_BYTES // 4,
        fields=128,
        connections=_MAX_CONNECTIONS,
        head_seconds=timeouts.head,
        body_seconds=_BODY_SECONDS,
    )
    server = Server(
        gateway.answer,
        limits=limits,
        failed=gateway.failed,
        wall=wall,
        abandon_seconds=_ABANDON_SECONDS,
    )
    return GatewayParts(settings, server, gateway, streams, app, app_port)
