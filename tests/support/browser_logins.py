"""A signed-in browser, signing out of it, and what a client gets by one."""

import aiohttp
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


async def jwt_of(issuer: str, resource: str, user: str) -> str:
    """What an MCP client gets for this user."""
    pkce = Pkce()
    async with aiohttp.ClientSession() as http, Browser(leave_at=CALLBACK) as browser:
        metadata = {
            "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
        }
        async with http.post(f"{issuer}/oauth/register", json=metadata) as answer:
            client_id = (await answer.json())["client_id"]
        query = (
            f"response_type=code&client_id={client_id}&redirect_uri={CALLBACK}"
            f"&resource={resource}&code_challenge={pkce.challenge}&code_challenge_method=S256"
        )
        answered = await walk(browser, f"{issuer}/oauth/authorize?{query}", user)
        assert "code" in answered, answered
        form = {
            "grant_type": "authorization_code", "client_id": client_id, "redirect_uri": CALLBACK,
            "code": answered["code"], "code_verifier": pkce.verifier,
        }  # fmt: skip
        async with http.post(f"{issuer}/oauth/token", data=form) as answer:
            return str((await answer.json())["access_token"])
