"""The internet-facing listener: routes and limits; what a flow returns becomes HTTP here.

Every URL comes from the configured issuer, never from the request. The internal endpoint does
not exist on this listener.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from aiohttp import hdrs, web

from authserver.endpoints import discovery
from authserver.endpoints.introspection import TokenFacts
from authserver.endpoints.registration import Registration
from authserver.endpoints.revocation import Revocation
from authserver.endpoints.token_endpoint import TokenEndpoint
from authserver.handles import NewHandle
from authserver.metrics import Metrics
from authserver.oauth.errors import UnsupportedMediaType
from authserver.oauth.parsing import json_object
from authserver.oauth.resources import ResourceMap
from authserver.public.cookies import BINDING, BINDING_SECONDS, SESSION, BrowserCookie
from authserver.public.middleware import ErrorMiddleware, Handler
from authserver.public.pages import STYLE_ROUTE, Pages
from authserver.public.rate_limits import Throttling
from authserver.public.request_body import body_of, check_one_authorization, form_of, query_of
from authserver.public.responses import json_answer, page, preflight, see_other
from authserver.sign_in.authorize import Authorize
from authserver.sign_in.callback import Callback
from authserver.sign_in.consent import Consent
from authserver.sign_in.next_step import Redirect
from authserver.tokens.signing_keys import SigningKeys
from authserver.upstream.contract import Upstream

MAX_BODY_BYTES: Final = 64 * 1024
_CACHED: Final = "public, max-age=300"


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
        self._edge = ErrorMiddleware(issuer, pages, metrics, new_handle)
        self._cookie = BrowserCookie(issuer, BINDING, BINDING_SECONDS, new_handle)
        self._session = BrowserCookie(issuer, SESSION, session_seconds, new_handle)
        self._pages = pages
        self._prefix = urlsplit(issuer).path

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._edge.middleware], client_max_size=MAX_BODY_BYTES)
        for name in (discovery.OAUTH, discovery.OPENID):
            for path in discovery.well_known_paths(self._issuer, name):
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
        self._edge.allow_any_origin(path)

    # Handlers: parse, call the flow, wrap what it returns.

    async def _metadata(self, request: web.Request) -> web.Response:
        registration = self._flows.registration is not None
        found = discovery.document(
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
        found = await self._flows.authorize.handle(query_of(request), browser, session)
        if isinstance(found, Redirect):
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
        if upstream is None or not upstream.uses_form_post:
            raise web.HTTPMethodNotAllowed("POST", ["GET"])
        fields = await form_of(request)
        answer: dict[str, str] = {
            name: fields[name] for name in ("code", "state", "iss", "error") if name in fields
        }
        path = f"{self._issuer}/oauth/callback/{quote(upstream.name, safe='')}"
        return see_other(f"{path}?{urlencode(answer)}")

    def _sent(self, sent: Redirect) -> web.Response:
        """On to the next place; whoever has just signed in gets a session nobody knew before."""
        response = self._edge.back(sent.url, "signed_in")
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
