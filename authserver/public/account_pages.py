"""The routes of a person's own pages: connect links, their connections, the sign-in for these."""

from collections.abc import Iterator

from aiohttp import web

from authserver.account import connect, sign_in
from authserver.account.connect import Connect
from authserver.account.connect_steps import Confirmation, SignInFirst
from authserver.account.connections import ConnectionsPage
from authserver.account.sign_in import AccountSignIn
from authserver.public.cookies import BrowserCookie
from authserver.public.middleware import Handler, Site
from authserver.public.rate_limits import Throttling
from authserver.public.request_body import form_of
from authserver.public.responses import page, see_other
from authserver.sign_in.next_step import Redirect
from authserver.values import Value


class AccountFlows(Value, frozen=True):
    """What the routes lead to."""

    connect: Connect
    connections: ConnectionsPage
    sign_in: AccountSignIn


class AccountPages:
    def __init__(
        self,
        site: Site,
        flows: AccountFlows,
        throttling: Throttling,
        binding: BrowserCookie,
        session: BrowserCookie,
    ) -> None:
        self._site, self._flows, self._throttling = site, flows, throttling
        self._cookie, self._session = binding, session

    def routes(self, prefix: str) -> Iterator[tuple[str, dict[str, Handler]]]:
        """Each path with its handlers by method; all are pages."""
        yield f"{prefix}/connect/confirm", {"POST": self._settle}
        link: dict[str, Handler] = {"GET": self._link, "HEAD": self._link, "POST": self._begin}
        yield f"{prefix}/connect/{{link}}", link
        yield f"{prefix}/connections/sign-in", {"POST": self._sign_in}
        mine: dict[str, Handler] = {"GET": self._mine, "HEAD": self._mine, "POST": self._end}
        yield f"{prefix}/connections", mine

    async def answered(
        self, upstream: str, fields: dict[str, str], browser: str | None
    ) -> web.Response | None:
        """The answer to an upstream's callback, if it belongs to one of these pages."""
        state = fields.get("state", "")
        if state.startswith(sign_in.STATE_PREFIX):
            return self._sent(await self._flows.sign_in.answered(upstream, fields, browser))
        if state.startswith(connect.STATE_PREFIX):
            return self._shown(await self._flows.connect.answered(upstream, fields, browser))
        return None

    def _shown(self, outcome: Redirect | Confirmation) -> web.Response:
        if isinstance(outcome, Redirect):
            return self._sent(outcome)
        response = page(self._site.pages.connect_confirm(outcome))
        if outcome.session is not None:
            self._session.set_on(response, outcome.session)
        return response

    def _sent(self, sent: Redirect) -> web.Response:
        response = see_other(sent.url)
        if sent.session is not None:
            self._session.set_on(response, sent.session)
        return response

    async def _link(self, request: web.Request) -> web.Response:
        self._throttling.sign_in(request)
        browser = self._cookie.read_or_new(request)
        outcome = await self._flows.connect.describe(
            request.match_info["link"], browser, self._session.read(request)
        )
        pages = self._site.pages
        if isinstance(outcome, SignInFirst):
            response = page(pages.connect_sign_in(outcome))
        else:
            response = page(pages.connect_prompt(outcome))
        self._cookie.set_on(response, browser)
        return response

    async def _begin(self, request: web.Request) -> web.Response:
        self._throttling.sign_in(request)
        fields = await form_of(request)
        browser, session = self._cookie.read(request), self._session.read(request)
        link, site = request.match_info["link"], request.headers.get("Sec-Fetch-Site")
        return self._sent(await self._flows.connect.begin(link, fields, browser, session, site))

    async def _settle(self, request: web.Request) -> web.Response:
        fields = await form_of(request)
        browser, session = self._cookie.read(request), self._session.read(request)
        site = request.headers.get("Sec-Fetch-Site")
        outcome = await self._flows.connect.settle(fields, browser, session, site)
        if isinstance(outcome, Redirect):
            return self._sent(outcome)
        return page(self._site.pages.connected(outcome))

    async def _mine(self, request: web.Request) -> web.Response:
        self._throttling.sign_in(request)
        mine = await self._flows.connections.describe(self._session.read(request))
        if mine is not None:
            return page(self._site.pages.connections(mine))
        browser = self._cookie.read_or_new(request)
        choices = self._flows.sign_in.describe(browser)
        response = page(self._site.pages.connections_sign_in(choices))
        self._cookie.set_on(response, browser)
        return response

    async def _sign_in(self, request: web.Request) -> web.Response:
        self._throttling.sign_in(request)
        fields, site = await form_of(request), request.headers.get("Sec-Fetch-Site")
        return self._sent(await self._flows.sign_in.begin(fields, self._cookie.read(request), site))

    async def _end(self, request: web.Request) -> web.Response:
        fields, session = await form_of(request), self._session.read(request)
        site = request.headers.get("Sec-Fetch-Site")
        signed_out = await self._flows.connections.handle(fields, session, site)
        response = see_other(f"{self._site.issuer}/{'' if signed_out else 'connections'}")
        if signed_out:
            self._session.clear_on(response)
        return response
