"""Binding a sign-in to the browser that started it, by a cookie we alone can set.

Where the issuer is https the cookie has the `__Host-` prefix: no neighbouring host and no path
can plant or shadow it. Plain http exists on loopback only, where browsers refuse that prefix.
"""

from aiohttp import web

from authserver.handles import NewHandle
from authserver.parsing import only_cookie

_SECONDS = 3600


class BrowserCookie:
    def __init__(self, issuer: str, new_handle: NewHandle) -> None:
        secure = issuer.startswith("https://")
        self._name = "__Host-tokenward" if secure else "tokenward"
        self._attributes = (
            f"; Path=/; Max-Age={_SECONDS}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
        )
        self._new_handle = new_handle

    def read(self, request: web.BaseRequest) -> str | None:
        """The browser's handle, if it sent exactly one."""
        return only_cookie(request.headers.getall("Cookie", []), self._name)

    def read_or_new(self, request: web.BaseRequest) -> str:
        """The handle this browser has, so that several tabs may sign in, or a fresh one."""
        return self.read(request) or self._new_handle()

    def set_on(self, response: web.StreamResponse, handle: str) -> None:
        response.headers.add("Set-Cookie", f"{self._name}={handle}{self._attributes}")
