"""A small web site on loopback whose pages a test writes: documents of clients, and traps."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebSite:
    """`pages` maps paths to what answers there; `visits` are the paths asked for, in order.

    `forms` are the fields of the POSTs among them, `objects` the bodies written as a JSON object,
    and `headers` what came with every request.
    """

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self.pages: dict[str, Page] = {}
        self.visits: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.objects: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []

    def put(
        self,
        path: str,
        body: dict[str, Any] | bytes,
        *,
        status: int = 200,
        media_type: str = "application/json",
        **headers: str,
    ) -> str:
        """Answer `path` with this; the page's URL."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, body=payload, content_type=media_type, headers=sent)

        self.pages[path] = answer
        return f"{self.url}{path}"

    def put_slow(self, path: str) -> str:
        """Drip one byte now and then and never end; the page's URL."""

        async def drip(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.2)

        self.pages[path] = drip
        return f"{self.url}{path}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.visits.append(request.path)
        self.headers.append(request.headers)
        if request.method != "GET" and request.content_type == "application/json":
            self.objects.append(await request.json())
        elif request.method == "POST":
            self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        page = self.pages.get(request.path)
        return await page(request) if page else web.Response(status=404)


@asynccontextmanager
async def web_site(tls: ssl.SSLContext | None = None) -> AsyncIterator[WebSite]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    site = WebSite()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", site._answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        listening = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await listening.start()
        site.port = runner.addresses[0][1]
        site.url = f"{'https' if tls else 'http'}://127.0.0.1:{site.port}"
        yield site
    finally:
        await runner.cleanup()
