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
    AccessDenied,
    ErrorRedirect,
    InvalidRequest,
    ProtocolError,
    TemporarilyUnavailable,
    UserFacingError,
)
from authserver.oauth.parsing import Malformed
from authserver.oauth.redirect_uris import authorization_response_url
from authserver.public.pages import Outcome, Pages
from authserver.public.responses import page, plain_refusal, refused, see_other
from authserver.storage.contract import StorageUnavailable
from authserver.storage.keyring import DecryptionFailed
from chassis.logs import Log, current_request_id, request_scope

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


class ErrorMiddleware:
    def __init__(self, issuer: str, pages: Pages, metrics: Metrics, new_handle: NewHandle) -> None:
        self._issuer, self._prefix = issuer, urlsplit(issuer).path
        self._pages, self._metrics, self._new_handle = pages, metrics, new_handle
        self._open: set[str] = set()

    def allow_any_origin(self, path: str) -> None:
        """Let browser applications of any origin read what `path` answers, without credentials."""
        self._open.add(path)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started, request_id = time.perf_counter(), self._new_handle()[:16]
        with request_scope(request_id):
            response = await self._answered(request, handler)
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else ""
        headers = response.headers
        headers["X-Request-Id"] = request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers.setdefault("Cache-Control", "no-store")
        if self._issuer.startswith("https://"):
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if path in self._open:
            headers.update(_CORS)
        route = path.removeprefix(self._prefix) or "unmatched"
        self._metrics.requests_of(route, response.status).inc()
        self._metrics.request_seconds_of(route).observe(time.perf_counter() - started)
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

    def _redirected(self, back: ErrorRedirect) -> web.Response:
        _log.info("refused", reason=back.refusal.reason, error=back.refusal.error)
        url = authorization_response_url(
            back.redirect_uri, issuer=self._issuer, state=back.state, **back.refusal.members()
        )
        return self.back(url, "denied" if isinstance(back.refusal, AccessDenied) else "stopped")

    def back(self, url: str, outcome: Outcome) -> web.Response:
        """On to `url`. A browser that hands over to an application stays where it is, so it
        stays on a page that says how things stand.
        """
        if redirect_uris.is_private_use(url):
            return page(self._pages.handed_over(url, outcome))
        return see_other(url)

    def _render_error(
        self, request: web.Request, refusal: ProtocolError, message: str
    ) -> web.Response:
        """A refusal as a page with `message` where a person waits, else as JSON."""
        if _is_for_people(request):
            return self._error_page(message, refusal.status_code)
        return refused(refusal)

    def _error_page(self, message: str, status: int) -> web.Response:
        return page(self._pages.error(message, current_request_id() or ""), status)


def _is_for_people(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else ""
    return path.endswith(("/oauth/authorize", "/oauth/consent", "/oauth/callback/{upstream}"))
