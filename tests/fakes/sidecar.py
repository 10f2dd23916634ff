"""A small sidecar for the tests of the packages for authors: one route, and any answer they want.

Left alone it gives everybody a token of the upstream they named. `then` scripts the next answers.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

CHALLENGE = 'Bearer error="invalid_token", resource_metadata="https://mcp.example/.well-known/x"'
CONNECT_URL = "https://auth.example/connect/canary-link"
RESOURCE = "https://notes.example/mcp"


@dataclass(frozen=True)
class Asked:
    """One question as it came in."""

    headers: list[tuple[str, str]]
    body: Any
    connection: object = None

    @property
    def jwt(self) -> str | None:
        return next((v for n, v in self.headers if n.lower() == "authorization"), None)


Answer = Callable[[Asked], Awaitable[web.StreamResponse]]


def token_for(asked: Asked) -> str:
    """What an undisturbed fake gives: new where one was rejected, and each upstream its own."""
    if asked.body.get("rejected_token"):
        return "token-renewed"
    return f"token-{asked.body.get('upstream', 'only')}"


def refusal(status: int, error: str, **headers_and_members: str) -> Callable[[], web.Response]:
    """An answer of contracts section 2; names with a dash are headers, others are members."""
    members = {
        "error": error,
        "error_description": f"words for {error}",
        "action": "none",
        "request_id": "req-1",
    }
    headers: dict[str, str] = {}
    for name, value in headers_and_members.items():
        (headers if "-" in name else members)[name] = value

    def make() -> web.Response:
        return web.json_response(members, status=status, headers=headers)

    return make


SIGN_IN_AGAIN = refusal(
    401,
    "reauthentication_required",
    action="reauthenticate",
    connect_url=CONNECT_URL,
    **{"WWW-Authenticate": CHALLENGE},
)


class FakeSidecar:
    """Listens on a free port of 127.0.0.1 and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.document: dict[str, Any] | None = {
            "resource": RESOURCE,
            "authorization_servers": ["https://auth.example"],
        }
        self._next: deque[Answer] = deque()
        self._usual: Answer = _release

    def then(self, *answers: Callable[[], web.StreamResponse]) -> None:
        """The next answers, in order; afterwards the usual one."""
        self._next.extend(_fixed(make) for make in answers)

    def always(self, answer: Answer | None) -> None:
        """The usual answer from now on; None is the undisturbed one."""
        self._usual = answer or _release

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["FakeSidecar"]:
        application = web.Application()
        application.router.add_post("/v1/token", self._token)
        application.router.add_get("/.well-known/oauth-protected-resource", self._metadata)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _token(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(list(request.headers.items()), await request.json(), request.transport)
        self.asked.append(asked)
        return await (self._next.popleft() if self._next else self._usual)(asked)

    async def _metadata(self, _: web.Request) -> web.Response:
        if self.document is None:
            return refusal(404, "invalid_request")()
        return web.json_response(self.document)


def always(make: Callable[[], web.StreamResponse]) -> Answer:
    """A fresh response for every question: aiohttp sends an object only once."""
    return _fixed(make)


def _fixed(make: Callable[[], web.StreamResponse]) -> Answer:
    async def answer(_: Asked) -> web.StreamResponse:
        return make()

    return answer


async def _release(asked: Asked) -> web.StreamResponse:
    return web.json_response(
        {"access_token": token_for(asked), "token_type": "Bearer", "expires_in": 3600}
    )
