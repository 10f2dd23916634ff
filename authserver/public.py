"""The internet-facing listener: routes, limits and headers; what a flow returns becomes HTTP here.

Every URL comes from the configured issuer, never from the request. The internal endpoint does
not exist on this listener.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from authserver import metadata, redirects
from authserver.authorize import Authorize
from authserver.browser import BINDING, BINDING_SECONDS, SESSION, BrowserCookie
from authserver.callback import Callback
from authserver.consent import Consent
from authserver.errors import (
    AccessDenied,
    InvalidRequest,
    ProtocolError,
    Redirected,
    ShownToUser,
    TemporarilyUnavailable,
    UnsupportedMediaType,
)
from authserver.handles import NewHandle
from authserver.keys import SigningKeys
from authserver.metrics import Metrics
from authserver.onward import Sent
from authserver.pages import STYLE_ROUTE, Outcome, Pages
from authserver.parsing import Malformed, json_object
from authserver.redirects import answer_url
from authserver.registration import Registration
from authserver.request_fields import body_of, check_one_authorization, form_of, query_of
from authserver.resources import ResourceMap
from authserver.responses import json_answer, page, plain_refusal, preflight, refused, see_other
from authserver.revocation import Revocation
from authserver.storage.database import StorageDown
from authserver.storage.sealing import SealBroken
from authserver.throttling import Throttling
from authserver.token_endpoint import TokenEndpoint
from authserver.token_facts import TokenFacts
from authserver.upstream.contract import Upstream
from chassis.logs import Log, current_request_id, request_scope

_log = Log("public")

LARGEST_BODY: Final = 64 * 1024
_CACHED: Final = "public, max-age=300"
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


@dataclass(frozen=True)
class Flows:
    """What the routes lead to."""

    authorize: Authorize
    consent: Consent
    callback: Callback
    token: TokenEndpoint
    registration: Registration | None
    revocation: Revocation
    facts: TokenFacts


class Public:
    """Builds the public application."""

    def __init__(
        self,
        issuer: str,
        flows: Flows,
        keys: SigningKeys,
        resources: ResourceMap,
        upstreams: Mapping[str, Upstream],
        pages: Pages,
        throttling: Throttling,
        metrics: Metrics,
        new_handle: NewHandle,
        *,
        documents: bool,
        session_seconds: int,
    ) -> None:
        self._documents, self._throttling = documents, throttling
        self._issuer, self._flows, self._keys = issuer, flows, keys
        self._resources, self._upstreams = resources, upstreams
        self._metrics, self._new_handle = metrics, new_handle
        self._cookie = BrowserCookie(issuer, BINDING, BINDING_SECONDS, new_handle)
        self._session = BrowserCookie(issuer, SESSION, session_seconds, new_handle)
        self._pages = pages
        self._prefix = urlsplit(issuer).path
        self._open: set[str] = set()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._edge], client_max_size=LARGEST_BODY)
        for name in (metadata.OAUTH, metadata.OPENID):
            for path in metadata.well_known_paths(self._issuer, name):
                self._add_open(app, hdrs.METH_GET, path, self._metadata)
        prefix = self._prefix
        self._add_open(app, hdrs.METH_GET, f"{prefix}/.well-known/jwks.json", self._jwks)
        self._add_open(app, hdrs.METH_POST, f"{prefix}/oauth/token", self._token)
        self._add_open(app, hdrs.METH_POST, f"{prefix}/oauth/revoke", self._revoke)
        self._add_open(app, hdrs.METH_GET, f"{prefix}/oauth/userinfo", self._userinfo)
        app.router.add_post(f"{prefix}/oauth/introspect", self._introspect)
        if self._flows.registration is not None:
            self._add_open(app, hdrs.METH_POST, f"{prefix}/oauth/register", self._register)
        app.router.add_get(f"{prefix}/oauth/authorize", self._authorize, allow_head=False)
        app.router.add_post(f"{prefix}/oauth/consent", self._consent)
        app.router.add_get(
            f"{prefix}/oauth/callback/{{upstream}}", self._callback, allow_head=False
        )
        app.router.add_post(f"{prefix}/oauth/callback/{{upstream}}", self._posted_callback)
        app.router.add_get(f"{prefix}{STYLE_ROUTE}", self._style)
        return app

    def _add_open(self, app: web.Application, method: str, path: str, handler: Handler) -> None:
        """A route that a browser application of any origin may call, without credentials."""
        app.router.add_route(method, path, handler)
        app.router.add_route(hdrs.METH_OPTIONS, path, preflight)
        self._open.add(path)

    # Handlers: parse, call the flow, wrap what it returns.

    async def _metadata(self, request: web.Request) -> web.Response:
        registration = self._flows.registration is not None
        found = metadata.document(
            self._issuer,
            self._resources,
            self._keys,
            registration=registration,
            documents=self._documents,
        )
        return json_answer(found, cache=_CACHED)

    async def _jwks(self, request: web.Request) -> web.Response:
        return json_answer(self._keys.jwks(), cache=_CACHED)

    async def _authorize(self, request: web.Request) -> web.Response:
        self._throttling.sign_in(request)
        browser = self._cookie.read_or_new(request)
        session = self._session.read(request)
        found = await self._flows.authorize.ask(query_of(request), browser, session)
        if isinstance(found, Sent):
            response = self._sent(found)
        else:
            asked = [self._upstreams[name] for name in found.resource.upstreams]
            response = page(self._pages.consent(found, asked))
        self._cookie.set_on(response, browser)
        return response

    async def _consent(self, request: web.Request) -> web.Response:
        fields = await form_of(request)
        browser, session = self._cookie.read(request), self._session.read(request)
        site = request.headers.get("Sec-Fetch-Site")
        return self._sent(await self._flows.consent.answer(fields, browser, session, site))

    async def _callback(self, request: web.Request) -> web.Response:
        upstream, browser = request.match_info["upstream"], self._cookie.read(request)
        return self._sent(await self._flows.callback.finish(upstream, query_of(request), browser))

    async def _posted_callback(self, request: web.Request) -> web.Response:
        """Turn a form post from the upstream's site into a GET, which brings our cookie along."""
        upstream = self._upstreams.get(request.match_info["upstream"])
        if upstream is None or not upstream.posts_answer:
            raise web.HTTPMethodNotAllowed("POST", ["GET"])
        fields = await form_of(request)
        answer: dict[str, str] = {
            name: fields[name] for name in ("code", "state", "iss", "error") if name in fields
        }
        path = f"{self._issuer}/oauth/callback/{quote(upstream.name, safe='')}"
        return see_other(f"{path}?{urlencode(answer)}")

    def _sent(self, sent: Sent) -> web.Response:
        """On to the next place; whoever has just signed in gets a session nobody knew before."""
        response = self._back(sent.url, "signed_in")
        if sent.session is not None:
            self._session.set_on(response, sent.session)
        return response

    async def _token(self, request: web.Request) -> web.Response:
        check_one_authorization(request)
        fields = await form_of(request)
        return json_answer(
            await self._throttling.as_client(request, fields, self._flows.token.answer)
        )

    async def _revoke(self, request: web.Request) -> web.Response:
        check_one_authorization(request)
        fields = await form_of(request)
        await self._throttling.as_client(request, fields, self._flows.revocation.revoke)
        return web.Response(status=200)

    async def _userinfo(self, request: web.Request) -> web.Response:
        check_one_authorization(request)
        return json_answer(await self._flows.facts.userinfo(request.headers.get("Authorization")))

    async def _introspect(self, request: web.Request) -> web.Response:
        check_one_authorization(request)
        fields = await form_of(request)
        return json_answer(
            await self._throttling.as_client(request, fields, self._flows.facts.introspect)
        )

    async def _register(self, request: web.Request) -> web.Response:
        assert self._flows.registration is not None
        if request.content_type != "application/json":
            raise UnsupportedMediaType("media_type", "the body must be application/json")
        members = json_object(await body_of(request))
        source = self._throttling.source(request)
        return json_answer(await self._flows.registration.register(members, source), status=201)

    async def _style(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._pages.style, content_type="text/css", headers={"Cache-Control": _CACHED}
        )

    # The edge: one place renders failures, counts, and sets the headers every answer has.

    @web.middleware
    async def _edge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
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
        except Redirected as back:
            return self._redirected(back)
        except ShownToUser as shown:
            _log.info("refused", reason=shown.reason, shown=True)
            return self._error_page(shown.message, shown.status)
        except ProtocolError as refusal:
            _log.info("refused", reason=refusal.reason, error=refusal.error)
            return self._told(request, refusal, _MALFORMED)
        except Malformed as malformed:
            _log.info("refused", reason="malformed")
            unreadable = InvalidRequest("malformed", str(malformed))
            return self._told(request, unreadable, _MALFORMED)
        except web.HTTPException as http:
            return plain_refusal(http)
        except (StorageDown, SealBroken) as down:
            _log.error("storage_failed", kind=type(down).__name__)
            return self._told(request, TemporarilyUnavailable("storage_failed"), _TROUBLE)
        except Exception as error:  # noqa: BLE001 - the edge: one constant answer, no details
            _log.failure("request_failed", error)
            return self._told(request, ProtocolError("unexpected"), _TROUBLE)

    def _redirected(self, back: Redirected) -> web.Response:
        _log.info("refused", reason=back.refusal.reason, error=back.refusal.error)
        url = answer_url(
            back.redirect_uri, issuer=self._issuer, state=back.state, **back.refusal.members()
        )
        return self._back(url, "denied" if isinstance(back.refusal, AccessDenied) else "stopped")

    def _back(self, url: str, outcome: Outcome) -> web.Response:
        """On to `url`. A browser that hands over to an application stays where it is, so it
        stays on a page that says how things stand.
        """
        if redirects.is_private_use(url):
            return page(self._pages.handed_over(url, outcome))
        return see_other(url)

    def _told(self, request: web.Request, refusal: ProtocolError, message: str) -> web.Response:
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
