"""A small headless browser: it keeps cookies, follows redirects hop by hop and submits forms.

It sends `Origin` and `Sec-Fetch-Site` as browsers do, because consent pages look at them. It
runs no scripts and fetches no images or styles.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from demo.cookies import CookieJar
from demo.forms import Form, NoSuchControl, parse_forms

_MAX_HOPS: Final = 20
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SAME_METHOD: Final = (307, 308)
_FORM_TYPE: Final = "application/x-www-form-urlencoded"


class TooManyRedirects(Exception):
    """The servers send the browser in circles."""


@dataclass(frozen=True)
class Hop:
    """One request and its answer. `url` has no query values, so that it can be shown."""

    method: str
    url: str
    status: int
    seconds: float


@dataclass(frozen=True)
class Page:
    """Where a navigation ended. `status` is None when it left for `leave_at` unfetched."""

    url: str
    status: int | None
    headers: Mapping[str, str]
    text: str

    @property
    def form(self) -> Form:
        """The page's one form; raises NoSuchControl when there is none or another one."""
        forms = parse_forms(self.text)
        if len(forms) != 1:
            raise NoSuchControl(f"{len(forms)} forms at {shown(self.url)} ({self.status})")
        return forms[0]

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the URL."""
        return dict(URL(self.url, encoded=True).query)


@dataclass(frozen=True)
class _Request:
    method: str
    url: URL
    body: Mapping[str, str] | None
    origin: str | None
    site: str


class Browser:
    """An async context manager; each one has its own cookies.

    A navigation stops, without a request, at the first URL that starts with `leave_at`: the
    redirect URI of a native application, where the browser hands over.
    """

    def __init__(self, *, leave_at: str = "", on_hop: Callable[[Hop], None] | None = None) -> None:
        self.cookies = CookieJar()
        self.hops: list[Hop] = []
        self._leave_at = leave_at
        self._on_hop = on_hop or (lambda _: None)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Browser":
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=20)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def open(self, url: str) -> Page:
        """Go to `url` as if it had been typed or clicked in another program."""
        return await self._navigate(_Request("GET", URL(url, encoded=True), None, None, "none"))

    async def submit(
        self,
        page: Page,
        values: Mapping[str, str] | None = None,
        *,
        press: tuple[str, str] | None = None,
    ) -> Page:
        """Fill the page's one form, press a button of it (`press`: name and value) and follow."""
        form, here = page.form, URL(page.url, encoded=True)
        sent = form.filled(values or {}, press)
        target = here.join(URL(form.action, encoded=True)) if form.action else here
        site = _site(here, target)
        if form.method == "get":
            return await self._navigate(
                _Request("GET", target.with_query(sent), None, None, site), started_at=here
            )
        hidden = page.headers.get("Referrer-Policy") == "no-referrer"
        origin = "null" if hidden else str(here.origin())
        return await self._navigate(_Request("POST", target, sent, origin, site), started_at=here)

    async def _navigate(self, request: _Request, started_at: URL | None = None) -> Page:
        for _ in range(_MAX_HOPS):
            if self._leave_at and str(request.url).startswith(self._leave_at):
                return Page(str(request.url), None, {}, "")
            status, headers, text = await self._send(request)
            location = headers.get("Location")
            if status not in _REDIRECTS or location is None:
                return Page(str(request.url), status, headers, text)
            request = _redirected(request, status, location, started_at)
        raise TooManyRedirects(shown(str(request.url)))

    async def _send(self, request: _Request) -> tuple[int, CIMultiDictProxy[str], str]:
        assert self._session is not None, "use the browser in an `async with` block"
        begun = time.perf_counter()
        async with self._session.request(
            request.method,
            request.url,
            data=request.body,
            headers=self._headers(request),
            allow_redirects=False,
        ) as answer:
            text = await answer.text(errors="replace")
            for set_cookie in answer.headers.getall("Set-Cookie", ()):
                self.cookies.take(request.url, set_cookie)
            url, seconds = shown(str(request.url)), time.perf_counter() - begun
            self.hops.append(Hop(request.method, url, answer.status, seconds))
            self._on_hop(self.hops[-1])
            return answer.status, answer.headers, text

    def _headers(self, request: _Request) -> dict[str, str]:
        headers = {
            "Accept": "text/html,*/*;q=0.8",
            "Sec-Fetch-Dest": "document",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Site": request.site,
        }
        if cookies := self.cookies.sent_to(request.url):
            headers["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)
        if request.body is not None:
            headers["Content-Type"] = _FORM_TYPE
        if request.origin is not None:
            headers["Origin"] = request.origin
        return headers


def shown(url: str) -> str:
    """`url` with its query values left out: they are codes, states and challenges."""
    parsed = URL(url, encoded=True)
    names = "&".join(f"{name}=…" for name in dict.fromkeys(parsed.query))
    plain = parsed.with_query(None).with_fragment(None)
    return f"{plain}?{names}" if names else str(plain)


def _redirected(request: _Request, status: int, location: str, started_at: URL | None) -> _Request:
    url = request.url.join(URL(location, encoded=True))
    # The site of a redirected request is the widest of all its hops; a typed address has none.
    site = request.site if started_at is None else _wider(request.site, _site(started_at, url))
    if status in _SAME_METHOD:
        same = url.origin() == request.url.origin()
        origin = request.origin if same or request.origin is None else "null"
        return _Request(request.method, url, request.body, origin, site)
    return _Request("GET", url, None, None, site)


def _site(here: URL, target: URL) -> str:
    """The value of Sec-Fetch-Site; on loopback a site is a scheme and a host, whatever the port."""
    if here.origin() == target.origin():
        return "same-origin"
    same_site = (here.scheme, here.host) == (target.scheme, target.host)
    return "same-site" if same_site else "cross-site"


def _wider(one: str, other: str) -> str:
    return max(one, other, key=("same-origin", "same-site", "cross-site").index)
