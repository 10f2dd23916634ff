"""A signed-in browser, and signing out of it."""

from yarl import URL

from demo.browser import Browser
from demo.forms import parse_forms
from tests.support.deployment import CALLBACK, Answer, Deployment, Pkce, walk


async def session_of(world: Deployment, user: str = "alice") -> str:
    """The cookie of a browser at which `user` has just signed in."""
    async with Browser(leave_at=CALLBACK) as browser:
        client_id = (await world.register())["client_id"]
        await walk(browser, world.authorize_url(client_id, Pkce()), user)
        cookies = browser.cookies.sent_to(URL(world.issuer))
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)


async def home(world: Deployment, cookie: str | None = None) -> Answer:
    return await world.call("GET", "/", headers={"Cookie": cookie} if cookie else {})


async def sign_out(
    world: Deployment, cookie: str, token: str | None = None, **headers: str
) -> Answer:
    if token is None:
        (form,) = parse_forms((await home(world, cookie)).text)
        token = form.fields["token"]
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.call(
        "POST", "/sign-out", data={"token": token}, headers={"Cookie": cookie} | sent
    )
