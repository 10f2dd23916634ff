"""The edge of the public listener: what fails becomes an answer here, and every answer is counted
and gets the headers that all have.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import HttpVersion10, HttpVersion11, web

from authserver.handles import NewHandle
from authserver.metrics import Metrics
from authserver.oauth import redirect_uris
from authserver.oauth.errors import (
    ErrorRedirect,
    InvalidRequest,
    ProtocolError,
    TemporarilyUnavailable,
    UserFacingError,
)
from authserver.oauth.parsing import Malformed
from authserver.oauth.redirect_uris import authorization_response_url
from authserver.public.pages import Ending, Pages, ending_of
from authserver.public.responses import page, plain_refusal, refused, see_other
from authserver.storage.contract import StorageUnavailable
from authserver.storage.keyring import DecryptionFailed
from authserver.values import Value
from chassis.logs import Log, current_request_id, request_scope
from chassis.request_ids import caller_request_id, new_request_id

_log = Log("public")

_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept, MCP-Protocol-Version",
    "Access-Control-Expose-Headers": "WWW-Authenticate",
    "Access-Control-Max-Age": "600",
}
_TROUBLE: Final = "Something went wrong on our side. Please connect again in a moment."
_MALFORMED: Final = "The application that sent you here made a request that cannot be read."

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site(Value, frozen=True):
    """What every answer of the public listener needs."""

    issuer: str
    pages: Pages
    metrics: Metrics
    new_handle: NewHandle


class ErrorMiddleware:
    def __init__(self, site: Site) -> None:
        self._site, self._prefix = site, urlsplit(site.issuer).path
        self._cors: set[str] = set()
        self._html: set[str] = set()

    def describe(self, path: str, *, cors: bool, html: bool) -> None:
        """Note how a route answers.

        `cors`: browser applications of any origin may read it, without credentials. `html`: a
        person waits for it, so a refusal is a page.
        """
        if cors:
            self._cors.add(path)
        if html:
            self._html.add(path)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        request_id = caller_request_id(request.headers) or new_request_id()
        with request_scope(request_id):
            response = await self._answered(request, handler)
        path = _path_of(request)
        headers = response.headers
        headers["X-Request-Id"] = request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers.setdefault("Cache-Control", "no-store")
        if self._site.issuer.startswith("https://"):
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if path in self._cors:
            headers.update(_CORS)
        route = path.removeprefix(self._prefix) or "unmatched"
        self._site.metrics.requests_of(route, response.status).inc()
        self._site.metrics.request_seconds_of(route).observe(time.perf_counter() - started)
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.version not in (HttpVersion10, HttpVersion11):
                raise web.HTTPBadRequest  # the parser takes any number (RFC 9112 section 2.3)
            return await handler(request)
        except ErrorRedirect as back:
            return self._redirected(back)
        except UserFacingError as shown:
            _log.info("refused", reason=shown.reason, shown=True)
            return self._error_page(shown.message, shown.status)
        except ProtocolError as refusal:
            _log.info("refused", reason=refusal.reason, error=refusal.error)
            return self._render_error(request, refusal, _MALFORMED)
        except Malformed as malformed:
            _log.info("refused", reason="malformed")
            unreadable = InvalidRequest("malformed", str(malformed))
            return self._render_error(request, unreadable, _MALFORMED)
        except web.HTTPException as http:
            return plain_refusal(http)
        except (StorageUnavailable, DecryptionFailed) as down:
            _log.error("storage_failed", kind=type(down).__name__)
            return self._render_error(request, TemporarilyUnavailable("storage_failed"), _TROUBLE)
        except Exception as error:  # noqa: BLE001 - the edge: one constant answer, no details
            _log.failure("request_failed", error)
            return self._render_error(request, ProtocolError("unexpected"), _TROUBLE)

    def _redirected(self, error: ErrorRedirect) -> web.Response:
        refusal = error.refusal
        _log.info(
            "refused", reason=refusal.reason, error=refusal.error, upstream=error.upstream or None
        )
        members = refusal.members()
        if "error_description" in members:
            members["error_description"] += f" (request {current_request_id()})"
        url = authorization_response_url(
            error.redirect_uri, issuer=self._site.issuer, state=error.state, **members
        )
        return self.back(url, ending_of(error))

    def back(self, url: str, ending: Ending) -> web.Response:
        """On to `url`. A browser that hands over to an application stays where it is, so it
        stays on a page that says how the sign-in ended.
        """
        if redirect_uris.is_private_use(url):
            request_id = current_request_id() or ""
            return page(self._site.pages.handed_over(url, ending, request_id))
        return see_other(url)

    def _render_error(
        self, request: web.Request, refusal: ProtocolError, message: str
    ) -> web.Response:
        """A refusal as a page with `message` where a person waits, else as JSON."""
        if _path_of(request) in self._html:
            return self._error_page(message, refusal.status_code)
        return refused(refusal)

    def _error_page(self, message: str, status: int) -> web.Response:
        return page(self._site.pages.error(message, current_request_id() or ""), status)


def _path_of(request: web.Request) -> str:
    """The path of the matched route, with its parameters unfilled; empty without a route."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""
