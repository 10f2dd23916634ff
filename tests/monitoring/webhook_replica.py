"""A second replica of the webhook, in this process, that can be made to fail."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chassis import clock
from chassis.http1.listener import Listener
from chassis.http1_probes import ops_server
from chassis.probes import Readiness, new_registry
from chassis.tls import contexts
from tests.webhook.pods import settings
from webhook import listener
from webhook.metrics import Metrics
from webhook.settings import Settings


class WebhookReplica:
    """`broken`: it has lost its settings. No review is known that makes the webhook fail."""

    def __init__(self) -> None:
        self.broken, self.url = False, ""
        self._settings = settings()

    def _current(self) -> Settings:
        if self.broken:
            raise RuntimeError("the settings are lost")
        return self._settings

    @asynccontextmanager
    async def running(self, certificates: Path, ops_port: int) -> AsyncIterator[None]:
        """Serve reviews and /metrics until the end of the block."""
        registry = new_registry()
        metrics = Metrics(registry)
        metrics.certificate_expiry.set(clock.wall() + 30 * 86400)
        pair = contexts.KeyPair(certificates / "tls.crt", certificates / "tls.key")
        reviewing = listener.server(self._current, Readiness(), metrics)
        bound = await Listener(
            "webhook", "127.0.0.1", 0, reviewing, tls=contexts.server_context(pair)
        ).bind(0.0)
        ops = await Listener("ops", "127.0.0.1", ops_port, ops_server(Readiness(), registry)).bind(
            0.0
        )
        self.url = f"https://127.0.0.1:{bound.port}/mutate?timeout=2s"
        try:
            yield
        finally:
            await bound.cleanup()
            await ops.cleanup()
