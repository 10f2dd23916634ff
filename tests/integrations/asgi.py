"""A small MCP server as an ASGI application, and a client that calls it without a network."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.sidecar import FakeSidecar
from tokenward_mcp import TokenwardMiddleware

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"

Tool = Callable[[], Awaitable[object]]


@dataclass
class Reply:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


@dataclass
class Server:
    """An MCP server of a few lines: runs `tool`, and answers with what it returns."""

    tool: Tool
    requests: int = 0
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.requests += 1
        self.bodies.append((await receive())["body"])
        found = await self.tool()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in found if isinstance(found, list) else [found]:
            body = str(part).encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def call(
    app: Any,
    *,
    method: str = "POST",
    path: str = "/mcp",
    authorization: str | list[str] | None = f"Bearer {JWT}",
    body: bytes = b"{}",
    **scope: Any,
) -> tuple[Reply, int]:
    """One request; the answer, and how often the body was read."""
    given = [authorization] if isinstance(authorization, str) else authorization or []
    reply, reads = Reply(), 0

    async def receive() -> dict[str, Any]:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = [(n.decode(), v.decode()) for n, v in message["headers"]]
        else:
            reply.chunks.append(message["body"])

    whole = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(b"authorization", value.encode()) for value in given],
        **scope,
    }
    await app(whole, receive, send)
    return reply, reads


async def shut_down(app: Any) -> None:
    """What a web server does at its end."""

    async def nothing(_: Any = None) -> dict[str, Any]:
        return {}

    await app({"type": "lifespan"}, nothing, nothing)


class Pod(FakeSidecar):
    """The sidecar, and the applications beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.apps: list[Any] = []

    def protect(self, server: Any, **options: Any) -> Any:
        self.apps.append(TokenwardMiddleware(server, **{"url": self.url, **options}))
        return self.apps[-1]
