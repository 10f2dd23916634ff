"""The internet-facing listener: routes and limits; what a flow returns becomes HTTP here.

Every URL comes from the configured issuer, never from the request. The internal endpoint does
not exist on this listener.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

from aiohttp import hdrs, web

from authserver.endpoints import discovery
from authserver.endpoints.introspection import Introspection
from authserver.endpoints.registration import Registration
from authserver.endpoints.revocation import Revocation
from authserver.endpoints.token_endpoint import TokenEndpoint
from authserver.endpoints.userinfo import Userinfo
from authserver.oauth.errors import InvalidRequest, UnsupportedMediaType
from authserver.oauth.parsing import json_object
from authserver.oauth.redirect_uris import callback_uri
from authserver.public.account_pages import AccountFlows, AccountPages
from authserver.public.cookies import BINDING, BINDING_SECONDS, SESSION, BrowserCookie
from authserver.public.middleware import ErrorMiddleware, Handler, Site
from authserver.public.pages import FAVICON_ROUTE, LOGO_ROUTE, STYLE_ROUTE, Ending, Outcome
from authserver.public.rate_limits import Throttling
from authserver.public.request_body import (
    BODY_SECONDS,
    body_of,
    check_one_authorization,
    form_of,
    query_of,
)
from authserver.public.responses import image, json_answer, page, preflight, see_other
from authserver.sign_in.authorize import Authorize
from authserver.sign_in.callback import Callback
from authserver.sign_in.consent import Consent
from authserver.sign_in.next_step import Redirect
from authserver.sign_in.sign_out import SignOut
from authserver.storage.records import NO_ACCOUNT
from authserver.tokens.signing_keys import SigningKeys
from authserver.upstream.contract import Upstream
from authserver.values import Value

MAX_BODY_BYTES: Final = 64 * 1024
_CACHED: Final = "public, max-age=300"


class Flows(Value, frozen=True):
    """What the routes lead to."""

    metadata: discovery.MetadataDocument
    keys: SigningKeys
    authorize: Authorize
    consent: Consent
    callback: Callback
    account: AccountFlows
    sign_out: SignOut
    token: TokenEndpoint
    registration: Registration | None
    revocation: Revocation
    introspection: Introspection
    userinfo: Userinfo


class Public:
    """Builds the public application."""

    def __init__(
        self,
        site: Site,
        flows: Flows,
        upstreams: Mapping[str, Upstream],
        throttling: Throttling,
        *,
        session_seconds: int,
        body_seconds: float,
    ) -> None:
        self._site, self._flows, self._body_seconds = site, flows, body_seconds
        self._upstreams, self._throttling = upstreams, throttling
        self._middleware = ErrorMiddleware(site)
        self._cookie = BrowserCookie(site.issuer, BINDING, BINDING_SECONDS, site.new_handle)
        self._session = BrowserCookie(site.issuer, SESSION, session_seconds, site.new_handle)
        self._account_pages = AccountPages(
            site, flows.account, throttling, self._cookie, self._session
        )

    def application(self) -> web.Application:
        app = web.Application(
            middlewares=[self._middleware.middleware], client_max_size=MAX_BODY_BYTES
        )
        app[BODY_SECONDS] = self._body_seconds
        for path, methods, cors, html in self._routes():
            self._middleware.describe(path, cors=cors, html=html)
            if cors:
                app.router.add_route(hdrs.METH_OPTIONS, path, preflight)
            for method, handler in methods.items():
                app.router.add_route(method, path, handler)
        return app

    def _routes(self) -> Iterator[tuple[str, dict[str, Handler], bool, bool]]:
        """Each path with its handlers by method, whether it has CORS and whether it is a page."""
        prefix = urlsplit(self._site.issuer).path
        for name in (discovery.OAUTH, discovery.OPENID):
            for path in discovery.well_known_paths(self._site.issuer, name):
                yield path, _readable(self._metadata), True, False
        yield f"{prefix}/.well-known/jwks.json", _readable(self._jwks), True, False
        yield f"{prefix}/oauth/token", {"POST": self._token}, True, False
        yield f"{prefix}/oauth/revoke", {"POST": self._revoke}, True, False
        userinfo = {**_readable(self._userinfo), "POST": self._posted_userinfo}
        yield f"{prefix}/oauth/userinfo", userinfo, True, False
        yield f"{prefix}/oauth/introspect", {"POST": self._introspect}, False, False
        if self._flows.registration is not None:
            yield f"{prefix}/oauth/register", {"POST": self._register}, True, False
        authorize: dict[str, Handler] = {"GET": self._authorize, "POST": self._posted_authorize}
        yield f"{prefix}/oauth/authorize", authorize, False, True
        yield f"{prefix}/oauth/consent", {"POST": self._consent}, False, True
        callback: dict[str, Handler] = {"GET": self._callback, "POST": self._posted_callback}
        yield f"{prefix}/oauth/callback/{{upstream}}", callback, False, True
        for path, handlers in self._account_pages.routes(prefix):
            yield path, handlers, False, True
        for path in dict.fromkeys((f"{prefix}/", prefix or "/")):
            yield path, _readable(self._home), False, True
        yield f"{prefix}/sign-out", {"POST": self._sign_out}, False, True
        yield f"{prefix}{STYLE_ROUTE}", _readable(self._style), False, False
        yield f"{prefix}{FAVICON_ROUTE}", _readable(self._favicon), False, False
        if self._site.pages.logo is not None:
            yield f"{prefix}{LOGO_ROUTE}", _readable(self._logo), False, False

    # Handlers: parse, call the flow, wrap what it returns.

    async def _metadata(self, request: web.Request) -> web.Response:
        return json_answer(self._flows.metadata.handle(), cache=_CACHED)

    async def _jwks(self, request: web.Request) -> web.Response:
        return json_answer(self._flows.keys.jwks(), cache=_CACHED)

    async def _authorize(self, request: web.Request) -> web.Response:
        return await self._authorized(request, query_of(request))

    async def _posted_authorize(self, request: web.Request) -> web.Response:
        """The same by POST (OpenID Connect Core section 3.1.2.1)."""
        return await self._authorized(request, await form_of(request))

    async def _authorized(self, request: web.Request, fields: dict[str, str]) -> web.Response:
        source = self._throttling.sign_in(request)
        browser = self._cookie.read_or_new(request)
        session = self._session.read(request)
        outcome = await self._flows.authorize.handle(fields, browser, session, source)
        if isinstance(outcome, Redirect):
            response = self._sent(outcome)
        else:
            response = page(self._site.pages.consent(outcome))
        self._cookie.set_on(response, browser)
        return response

    async def _consent(self, request: web.Request) -> web.Response:
        fields = await form_of(request)
        browser, session = self._cookie.read(request), self._session.read(request)
        site = request.headers.get("Sec-Fetch-Site")
        return self._sent(await self._flows.consent.handle(fields, browser, session, site))

    async def _callback(self, request: web.Request) -> web.Response:
        upstream, browser = request.match_info["upstream"], self._cookie.read(request)
        fields = query_of(request)
        answer = await self._account_pages.answered(upstream, fields, browser)
        if answer is not None:
            return answer
        return self._sent(await self._flows.callback.handle(upstream, fields, browser))

    async def _posted_callback(self, request: web.Request) -> web.Response:
        """Turn a form post from the upstream's site into a GET, which brings our cookie along."""
        upstream = self._upstreams.get(request.match_info["upstream"])
        if upstream is None or not upstream.uses_form_post:
            raise web.HTTPMethodNotAllowed("POST", ["GET"])
        fields = await form_of(request)
        answer: dict[str, str] = {
            name: fields[name] for name in ("code", "state", "iss", "error") if name in fields
        }
        path = callback_uri(self._site.issuer, upstream.name)
        return see_other(f"{path}?{urlencode(answer)}")

    def _sent(self, sent: Redirect) -> web.Response:
        """On to the next place; whoever has just signed in gets a session nobody knew before."""
        ending = Ending(Outcome.SIGNED_IN, account=sent.account, failed=sent.failed)
        response = self._middleware.back(sent.url, ending)
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
        await self._throttling.as_client(request, fields, self._flows.revocation.handle)
        return web.Response(status=200)

    async def _userinfo(self, request: web.Request) -> web.Response:
        check_one_authorization(request)
        return json_answer(await self._flows.userinfo.handle(request.headers.get("Authorization")))

    async def _posted_userinfo(self, request: web.Request) -> web.Response:
        """By POST the token may be in the body (RFC 6750 section 2.2), in one place only."""
        check_one_authorization(request)
        authorization = request.headers.get("Authorization")
        if request.can_read_body:
            token = (await form_of(request)).get("access_token")
            if token is not None and authorization is not None:
                raise InvalidRequest("two_tokens", "the token belongs into one place")
            authorization = f"Bearer {token}" if token is not None else authorization
        return json_answer(await self._flows.userinfo.handle(authorization))

    async def _introspect(self, request: web.Request) -> web.Response:
        check_one_authorization(request)
        fields = await form_of(request)
        return json_answer(
            await self._throttling.as_client(request, fields, self._flows.introspection.handle)
        )

    async def _register(self, request: web.Request) -> web.Response:
        assert self._flows.registration is not None
        if request.content_type != "application/json":
            raise UnsupportedMediaType("media_type", "the body must be application/json")
        members = json_object(await body_of(request))
        source = self._throttling.source(request)
        return json_answer(await self._flows.registration.handle(members, source), status=201)

    async def _home(self, request: web.Request) -> web.Response:
        visitor, token = await self._flows.sign_out.describe(self._session.read(request))
        account = visitor.account if visitor is not None else NO_ACCOUNT
        return page(
            self._site.pages.home(signed_in=visitor is not None, account=account, token=token)
        )

    async def _sign_out(self, request: web.Request) -> web.Response:
        fields, session = await form_of(request), self._session.read(request)
        await self._flows.sign_out.handle(fields, session, request.headers.get("Sec-Fetch-Site"))
        response = see_other(f"{self._site.issuer}/")
        self._session.clear_on(response)
        return response

    async def _favicon(self, request: web.Request) -> web.Response:
        return image(self._site.pages.favicon, "image/svg+xml", cache=_CACHED)

    async def _logo(self, request: web.Request) -> web.Response:
        assert self._site.pages.logo is not None
        return image(*self._site.pages.logo, cache=_CACHED)

    async def _style(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._site.pages.style, content_type="text/css", headers={"Cache-Control": _CACHED}
        )


def _readable(handler: Handler) -> dict[str, Handler]:
    """GET and HEAD (RFC 9110 section 9.1), for what changes nothing."""
    return {"GET": handler, "HEAD": handler}
