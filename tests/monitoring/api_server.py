"""What the API server does with the webhook: posts reviews, and counts the calls that failed."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, generate_latest

from tests.webhook.pods import pod, recorded

_CALL_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.2


class ApiServer:
    """`ca` may be changed: it is the `caBundle` of the webhook configuration."""

    def __init__(self, webhook_port: int, ca: Path) -> None:
        self.ca = ca
        self._url = f"https://127.0.0.1:{webhook_port}/mutate?timeout=2s"
        self._registry = CollectorRegistry()
        self._rejections = Counter(
            "apiserver_admission_webhook_rejection_count_total",
            "As kube-apiserver counts calls of webhooks that failed.",
            ["name", "type", "operation", "error_type", "rejection_code"],
            registry=self._registry,
        )
        self._rejection()

    async def work(self) -> None:
        """Post a review five times a second until cancelled."""
        for body in cycle(reviews()):
            await self.post(body)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def post(self, body: bytes, url: str | None = None) -> None:
        """One call of the webhook, over a connection of its own."""
        headers = {"Content-Type": "application/json"}
        try:
            tls = ssl.create_default_context(cafile=str(self.ca))
            connector = aiohttp.TCPConnector(ssl=tls)
            timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
                http.post(url or self._url, data=body, headers=headers) as answer,
            ):
                await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            self._rejection().inc()

    def _rejection(self) -> Counter:
        return self._rejections.labels(
            "pods.tokenward.dev", "admit", "CREATE", "calling_webhook_error", "0"
        )

    @asynccontextmanager
    async def metrics(self, port: int) -> AsyncIterator[None]:
        """Serve /metrics. kube-apiserver's counter has no `_total` at its end."""

        async def answer(_: web.Request) -> web.Response:
            text = generate_latest(self._registry).decode()
            return web.Response(text=text.replace("rejection_count_total", "rejection_count"))

        application = web.Application()
        application.add_routes([web.get("/metrics", answer)])
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield
        finally:
            await runner.cleanup()


def reviews(ballast: int = 0) -> list[bytes]:
    """Reviews of which one is injected, one left alone and one denied; `ballast` in bytes."""
    recording = recorded("pod-create-bare")
    pods = (
        pod(),
        pod({"inject": "false"}),
        pod({"resources.cpu": "a lot"}, hostNetwork=True),
    )
    texts = []
    for one in pods:
        if ballast:
            value = "x" * ballast
            one["spec"]["containers"][0]["env"] = [{"name": "BALLAST", "value": value}]
        request = recording["request"] | {"object": one}
        texts.append(json.dumps(recording | {"request": request}).encode())
    return texts
