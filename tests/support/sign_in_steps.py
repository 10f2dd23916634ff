"""A sign-in taken apart: each step of a browser as one plain request, so that tests can cheat."""

import asyncio
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from yarl import URL

from demo.browser import Browser
from demo.forms import parse_forms
from tests.support.deployment import Answer, Deployment, log_in


@dataclass(frozen=True)
class ExchangeRequest:
    """Our consent page is open: what its answer needs."""

    page: Answer
    cookie: str
    transaction: str

    def answer(self, decision: str = "allow") -> dict[str, str]:
        return {"transaction": self.transaction, "decision": decision}


@dataclass(frozen=True)
class Returning:
    """The user signed in upstream and is about to come back to our callback."""

    callback: str
    cookie: str

    @property
    def query(self) -> dict[str, str]:
        return query_of(self.callback)


def query_of(url: str) -> dict[str, str]:
    """The parameters of a URL, each exactly once."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert len({name for name, _ in pairs}) == len(pairs), url
    return dict(pairs)


def cookie_of(answer: Answer) -> str:
    """The one cookie an answer sets, as a browser sends it back."""
    return answer.headers["Set-Cookie"].partition(";")[0]


async def ask(world: Deployment, url: str, cookie: str | None = None) -> ExchangeRequest:
    """Open an authorization request up to our consent page."""
    page = await world.call("GET", url, headers={"Cookie": cookie} if cookie else {})
    assert page.status == 200, page.text
    (form,) = parse_forms(page.text)
    return ExchangeRequest(page, cookie_of(page), form.fields["transaction"])


async def consent(world: Deployment, asked: ExchangeRequest, decision: str = "allow") -> Answer:
    return await world.call(
        "POST", "/oauth/consent", data=asked.answer(decision), headers={"Cookie": asked.cookie}
    )


async def return_from_upstream(world: Deployment, url: str, user: str = "alice") -> Returning:
    """Allow and sign in as `user`; stop in front of our callback."""
    async with Browser(leave_at=f"{world.issuer}/oauth/callback/") as browser:
        page = await browser.submit(await browser.open(url), press=("decision", "allow"))
        page = await log_in(browser, page, user)
        cookies = browser.cookies.sent_to(URL(world.issuer))
    assert page.status is None, page.text
    return Returning(page.url, "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies))


async def finish(world: Deployment, returning: Returning) -> Answer:
    return await world.call("GET", returning.callback, headers={"Cookie": returning.cookie})


async def raw(world: Deployment, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; status and the whole answer."""
    port = urlsplit(world.issuer).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1]), answer
