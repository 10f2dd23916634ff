"""Our two cookies: one binds a sign-in to its browser, the other keeps a user signed in.

Where the issuer is https the cookie has the `__Host-` prefix: no neighbouring host and no path
can plant or shadow it. Plain http exists on loopback only, where browsers refuse that prefix.
"""

from aiohttp import web

from authserver.handles import NewHandle
from authserver.oauth.parsing import only_cookie

BINDING, SESSION = "tokenward", "tokenward-session"
BINDING_SECONDS = 3600


class BrowserCookie:
    def __init__(self, issuer: str, name: str, seconds: int, new_handle: NewHandle) -> None:
        secure = issuer.startswith("https://")
        self._name = f"__Host-{name}" if secure else name
        self._seconds = seconds
        self._attributes = f"HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
        self._new_handle = new_handle

    def read(self, request: web.BaseRequest) -> str | None:
        """The browser's handle, if it sent exactly one."""
        return only_cookie(request.headers.getall("Cookie", []), self._name)

    def read_or_new(self, request: web.BaseRequest) -> str:
        """The handle this browser has, so that several tabs may sign in, or a fresh one."""
        return self.read(request) or self._new_handle()

    def set_on(self, response: web.StreamResponse, handle: str) -> None:
        self._add(response, handle, self._seconds)

    def clear_on(self, response: web.StreamResponse) -> None:
        """Make the browser forget the cookie."""
        self._add(response, "", 0)

    def _add(self, response: web.StreamResponse, value: str, seconds: int) -> None:
        cookie = f"{self._name}={value}; Path=/; Max-Age={seconds}; {self._attributes}"
        response.headers.add("Set-Cookie", cookie)
