"""A controller in this process, against an API server in memory, with its own /metrics."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

from prometheus_client import CollectorRegistry

from chassis import clock, probes
from chassis.http1.listener import Listener
from chassis.http1_probes import ops_server
from controller.api.kinds import Kind
from controller.api.objects import Key
from controller.app import Controller
from controller.cluster import ApiError
from controller.metrics import Metrics
from controller.settings import Settings
from tests.controller.running import Site
from tests.controller.samples import SYSTEM

_PAUSE_SECONDS: Final = 1.0
_AUTHORITY_SECONDS: Final = 4.0
_CERTIFIED_SECONDS: Final = 60.0


class ControllerProcess:
    """`behind`: how much its clock is behind; `refused`: kinds that it cannot write."""

    def __init__(self, port: int) -> None:
        self.behind = timedelta(0)
        self.refused: set[str] = set()
        self.site = Site()
        self.site.api.refuse = self._refuse
        self._port, self._number = port, 0

    def _refuse(self, verb: str, kind: Kind, key: Key) -> None:
        if kind.kind in self.refused and verb not in ("get", "list", "watch"):
            raise ApiError(500, "InternalError", "")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(clock.wall(), UTC) - self.behind

    def new_server(self) -> Key:
        """Apply one more MCPServerAuth."""
        self._number += 1
        name = f"s{self._number}"
        self.site.put_server(name, resource=f"https://{name}.mcp.example.com/mcp")
        return Key("mcp-servers", name)

    async def certified(self, server: Key) -> None:
        """Wait until this server has its certificate, and the controller has said so."""
        async with asyncio.timeout(_CERTIFIED_SECONDS):
            while not self.site.is_so("CertificateReady", "True", server):
                await asyncio.sleep(0.1)

    async def work(self) -> None:
        """What people and the rest of the cluster do, until cancelled."""
        # The authority is a day old, so that a drill can issue a certificate of some hours ago.
        self.behind = timedelta(hours=22)
        self.site.put_auth_server()
        await asyncio.sleep(_AUTHORITY_SECONDS)
        self.behind = timedelta(0)
        keys = [self.new_server() for _ in range(3)]
        turn = 0
        while True:
            self.site.run_cluster()
            scopes = ["mcp", f"turn-{turn}"]
            self.site.put_server(
                keys[turn % 3].name,
                resource=f"https://{keys[turn % 3].name}.mcp.example.com/mcp",
                scopes=scopes,
            )
            turn += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def start(self) -> None:
        """Start a replica and its ops listener."""
        registry = probes.new_registry()
        controller = self._controller(registry)
        server = ops_server(probes.Readiness(), registry)
        self._bound = await Listener("ops", "127.0.0.1", self._port, server).bind(0.0)
        self._task = asyncio.create_task(controller.run())

    async def stop(self) -> None:
        """End it as by SIGTERM."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._bound.cleanup()

    def _controller(self, registry: CollectorRegistry) -> Controller:
        return Controller(
            Settings.model_validate(self.site.settings | {"namespace": SYSTEM}),
            self.site.api,  # type: ignore[arg-type]  # the same methods
            Metrics(registry),
            self.site.pods,
            identity="one",
            now=self._now,
            monotonic=monotonic,
            random=lambda: 0.5,
        )
