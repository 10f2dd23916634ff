"""A small authserver for the sidecar's tests: real mTLS, one route, and any answer a test wants.

Left alone it releases `upstream-token` to everyone its CA lets in. A test scripts other answers
with `then`, which are used up in order; `always` replaces the answer for good.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError
from typing import Any

from aiohttp import web

from chassis.tls.contexts import KeyPair, mutual_server_context

ACCESS_TOKEN = "upstream-token"


@dataclass(frozen=True)
class Received:
    """One request as it came in, and who sent it."""

    method: str
    path: str
    form: Mapping[str, str]
    serial: str
    uris: tuple[str, ...]
    headers: Mapping[str, str]
    request: web.BaseRequest

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        assert self.request.transport is not None
        self.request.transport.abort()


Answer = Callable[[Received], Awaitable[web.StreamResponse]]


def release(**changes: Any) -> web.Response:
    """A 200 of contracts section 3; a change to None leaves the member out."""
    members = {
        "access_token": ACCESS_TOKEN,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "repo",
        "upstream": "github",
        "cache_ttl": 60,
        "release": ["HandOut", "Attach"],
        "apis": [],
        "sub": "user-1",
        "client_id": "client-1",
        "session": "session-1",
        "connection": "connection-1",
    } | changes
    return _json(200, {name: value for name, value in members.items() if value is not None})


def refuse(status: int, error: str, *, retry_after: int | None = None) -> web.Response:
    members = {"error": error, "error_description": "canary-description"}
    if error in ("invalid_request", "invalid_target"):  # described where a name is missing only
        del members["error_description"]
    response = _json(status, members)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def asks_for_an_upstream(error: str = "invalid_target") -> web.Response:
    """What an owner hears that may obtain several upstreams and named none."""
    return _json(400, {"error": error, "error_description": "name one"})


def answering(make: Callable[[], web.StreamResponse]) -> Answer:
    """A fresh response for every request: aiohttp sends an object only once."""

    async def answer(_: Received) -> web.StreamResponse:
        return make()

    return answer


def held_until(released: asyncio.Event, make: Callable[[], web.StreamResponse] = release) -> Answer:
    """An answer that comes when the test lets it."""

    async def answer(_: Received) -> web.StreamResponse:
        await released.wait()
        return make()

    return answer


class FakeAuthserver:
    """Listens on a free port of 127.0.0.1 and remembers what it received."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.refused_handshakes: list[str] = []
        self.port = 0
        self._usual = answering(release)
        self._next: deque[Answer] = deque()
        self._runner: web.ServerRunner | None = None
        self._server: web.Server | None = None
        self._arrivals = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def serials(self) -> list[str]:
        return [request.serial for request in self.received]

    @property
    def connections(self) -> int:
        return len(self._server.connections) if self._server else 0

    def then(self, *answers: Callable[[], web.StreamResponse]) -> None:
        """The next answers; a fresh one is made for each request, aiohttp sends one only once."""
        self._next.extend(answering(make) for make in answers)

    def then_slowly(self, answer: Answer) -> None:
        self._next.append(answer)

    def always(self, answer: Answer) -> None:
        self._usual = answer

    async def until_received(self, count: int) -> None:
        async with self._arrivals:
            await self._arrivals.wait_for(lambda: len(self.received) >= count)

    async def start(self, pair: KeyPair, client_ca: Path) -> None:
        """Listen; started again after a stop, on the same port."""
        context = mutual_server_context(pair, client_ca, self._note_refused)
        self._server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _note_refused(self, error: SSLError) -> None:
        self.refused_handshakes.append(error.reason or "")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peercert")
        received = Received(
            method=request.method,
            path=request.raw_path,
            form=dict(await request.post()),  # type: ignore[arg-type]  # no files here
            serial=peer["serialNumber"],
            uris=tuple(value for kind, value in peer["subjectAltName"] if kind == "URI"),
            headers=request.headers,
            request=request,
        )
        async with self._arrivals:
            self.received.append(received)
            self._arrivals.notify_all()
        answer = self._next.popleft() if self._next else self._usual
        return await answer(received)


def _json(status: int, members: Mapping[str, Any]) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(members).encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
