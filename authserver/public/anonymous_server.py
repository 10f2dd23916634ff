"""aiohttp's server without its name and versions, and without bytes that it could not parse.

aiohttp puts a `Server` header with its own and Python's version on each response, and repeats
what it could not read in a 400. Neither helps a caller, and both help a stranger.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web

_TEXT: Final = "text/plain"


class AnonymousRequest(web.Request):
    """A request to an application."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        await super()._prepare_hook(response)
        response.headers.popall(hdrs.SERVER, None)


class AnonymousHandler(web.RequestHandler):
    """One connection, whose error responses are constants."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs, and checks what was sent
        response = web.Response(
            status=status, text=f"{HTTPStatus(status).phrase.lower()}\n", content_type=_TEXT
        )
        response.force_close()
        return response


class AnonymousServer(web.Server):
    """Like `web.Server`; its `request_factory` makes an `AnonymousRequest`."""

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self._connection_options = {
            name: value for name, value in options.items() if name not in _OF_SERVER
        }

    def __call__(self) -> AnonymousHandler:
        return AnonymousHandler(self, loop=asyncio.get_running_loop(), **self._connection_options)


_OF_SERVER: Final = ("request_factory", "handler_cancellation")
