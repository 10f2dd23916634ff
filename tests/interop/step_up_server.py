"""The sample MCP server, whose every tool wants scopes of the upstream that users have not granted.

It asks the sidecar before a tool runs, with `missing_scope`, and relays a refusal: status, body and
`WWW-Authenticate`, as docs/reference/sidecar-api.md says. STEP_UP_SCOPE names the scopes.
"""

import asyncio
import json
import os
from contextlib import suppress
from typing import Any

import httpx2
import uvicorn
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.mcp_server import build, options


class StepUp:
    """An ASGI middleware behind the check of the JWT."""

    def __init__(self, app: ASGIApp, http: httpx2.AsyncClient, sidecar: str, missing: str) -> None:
        self._app, self._http, self._sidecar, self._missing = app, http, sidecar, missing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if json.loads(body).get("method") == "tools/call":
            answer = await self._asked(scope)
            if answer.status_code != 200:
                await _relay(answer, send)
                return
        await self._app(scope, _again(body, receive), send)

    async def _asked(self, scope: Scope) -> httpx2.Response:
        (authorization,) = (v for n, v in scope["headers"] if n.lower() == b"authorization")
        return await self._http.post(
            f"{self._sidecar}/v1/token",
            headers={"Authorization": authorization.decode(), "X-Tokenward": "1"},
            json={"missing_scope": self._missing},
        )


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` as if the body had not been read."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return parts.pop() if parts else await receive()

    return receiving


async def _relay(answer: httpx2.Response, send: Send) -> None:
    names = ("content-type", "www-authenticate", "retry-after")
    headers = [(n.encode(), answer.headers[n].encode()) for n in names if n in answer.headers]
    start: dict[str, Any] = {"type": "http.response.start", "status": answer.status_code}
    await send(start | {"headers": headers})
    await send({"type": "http.response.body", "body": answer.content})


async def _serve() -> None:
    given = options().parse_args()
    sidecar = os.environ["TOKENWARD_URL"]  # noqa: TID251 - set by the webhook
    missing = os.environ["STEP_UP_SCOPE"]  # noqa: TID251 - set by the test
    async with httpx2.AsyncClient(trust_env=False) as http:
        app = build(
            http,
            name=given.name,
            resource=given.resource,
            issuer=given.issuer,
            scopes=given.scopes.split(),
            tokenward_url=sidecar,
            api=given.api,
        )
        app.user_middleware.append(Middleware(StepUp, http, sidecar, missing))
        config = uvicorn.Config(
            app, host="127.0.0.1", port=given.port, log_level="warning", access_log=False,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve())
