"""What happens by itself: expired rows go, and gauges say how much there is."""

import asyncio
from typing import Final

from authserver.endings import Endings
from authserver.metrics import Metrics
from authserver.storage.connections import Connections
from authserver.storage.database import StorageDown
from authserver.storage.sessions import Sessions
from authserver.storage.sweeping import Sweeper
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("housekeeping")

_EVERY_SECONDS: Final = 30


class Housekeeping:
    def __init__(
        self,
        sweeper: Sweeper,
        sessions: Sessions,
        connections: Connections,
        endings: Endings,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._sweeper, self._sessions, self._connections = sweeper, sessions, connections
        self._endings, self._metrics, self._clock = endings, metrics, clock

    async def run(self) -> None:
        """Until cancelled. Storage that is down is no reason to stop."""
        while True:
            try:
                await self.sweep()
                await self.measure()
            except StorageDown:
                _log.warning("storage_down")
            await asyncio.sleep(_EVERY_SECONDS)

    async def sweep(self) -> None:
        """Delete one batch of what expired; connections nobody holds any more go with it.

        They go first: a session that is left can be swept again, a connection without one never.
        """
        now = int(self._clock())
        await self._sweeper.expired(now)
        over = await self._sweeper.over_sessions(now)
        for user_id, owner in set(over.values()):
            await self._endings.purge_unheld(user_id, owner)
        await self._sweeper.drop_sessions(over)

    async def measure(self) -> None:
        self._metrics.sessions.set(await self._sessions.live(self._clock()))
        for upstream, dead, count in await self._connections.counts():
            self._metrics.connections.labels(upstream, "dead" if dead else "live").set(count)
