"""Tokens made by real servers that speak RFC 8693."""

import asyncio
import base64
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from demo.browser import Browser
from tests.interop.environments import HERE, node_packages
from tests.interop.keycloak import PASSWORD, USER, free_port, keycloak
from tests.support.deployment import CALLBACK, Deployment, Pkce, deployed
from tests.support.exchanging import notes
from tests.support.forged_tokens import claims_of
from tests.support.workloads import NOTES_SERVER, TASKS_SERVER, verdict

SECRET = "upstream secret canary"


async def signed_in(world: Deployment) -> str:
    """The JWT of a user who signed in at the real server's own page."""
    client_id, pkce = (await world.register())["client_id"], Pkce()
    async with Browser(leave_at=CALLBACK) as browser:
        page = await browser.open(world.authorize_url(client_id, pkce))
        page = await browser.submit(page, press=("decision", "allow"))
        page = await browser.submit(page, {"username": USER, "password": PASSWORD})
    code = page.url.partition("code=")[2].partition("&")[0]
    answer = await world.redeem(client_id, code, pkce)
    assert answer.status == 200, answer.text
    return str(answer.json()["access_token"])


def audiences(token: str) -> set[str]:
    named = claims_of(token)["aud"]
    return {named} if isinstance(named, str) else set(named)


@pytest.mark.interop
@pytest.mark.timeout(900)
async def test_keycloak_gives_each_back_end_its_own_token(tmp_path: Path) -> None:
    async with keycloak(tmp_path) as issuer:
        acme = {
            "name": "acme", "type": "oidc", "issuer": issuer, "clientId": "tokenward",
            "clientSecretFile": "upstream-secret", "exchangeOnly": True,
        }  # fmt: skip
        orders = {
            "name": "orders",
            "exchange": {"upstream": "acme", "audience": ["orders", "billing"]},
            "scopes": ["orders.read", "orders.write"],
        }
        async with deployed(tmp_path, upstreams=[acme, orders], resources=notes()) as world:
            jwt = await signed_in(world)

            async def made(**wish: str) -> dict[str, Any]:
                answer = await world.exchange(NOTES_SERVER, jwt, audience="orders", **wish)
                assert answer.status == 200, answer.text
                return answer.json()

            whole = await made()
            assert audiences(whole["access_token"]) == {"orders", "billing"}
            for audience in ("orders", "billing"):
                token = (await made(target_audience=audience))["access_token"]
                assert audiences(token) == {audience}
            read = (await made(target_audience="orders", scope="orders.read"))["access_token"]
            assert claims_of(read)["scope"].split() == ["orders.read"]
            assert (await made())["access_token"] == whole["access_token"]
            wider = await world.exchange(
                NOTES_SERVER, jwt, audience="orders", target_audience="payroll"
            )
            assert wider.json()["error"] == "invalid_target"
            stranger = await world.exchange(TASKS_SERVER, jwt, audience="orders")
            assert verdict(stranger) == (400, {"error": "invalid_request"})


@asynccontextmanager
async def oidc_provider(port: int, redirect_uri: str) -> AsyncIterator[None]:
    """The npm package, with a grant type that exchanges tokens."""
    packages = node_packages("node-exchange")
    program = packages / "exchange_server.mjs"
    shutil.copy(HERE / "exchange_server.mjs", program)  # it finds its packages beside it
    process = await asyncio.create_subprocess_exec(
        "node",
        program,
        stdout=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],  # noqa: TID251 - where node is
            "PORT": str(port),
            "REDIRECT_URI": redirect_uri,
        },
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"listening" not in (line := await process.stdout.readline()):
                assert line, "it ended"
        yield
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.interop
@pytest.mark.timeout(300)
async def test_oidc_provider_makes_tokens_that_end_with_the_session(tmp_path: Path) -> None:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    acme = {
        "name": "acme", "type": "oidc", "issuer": issuer, "clientId": "tokenward",
        "clientSecretFile": "upstream-secret", "exchangeOnly": True,
    }  # fmt: skip
    orders = {
        "name": "orders",
        "exchange": {"upstream": "acme", "audience": ["orders", "billing"]},
        "scopes": ["orders.read", "orders.write"],
    }
    async with (
        deployed(tmp_path, upstreams=[acme, orders], resources=notes()) as world,
        oidc_provider(port, f"{world.issuer}/oauth/callback/acme"),
    ):
        client_id, pkce = (await world.register())["client_id"], Pkce()
        async with Browser(leave_at=CALLBACK) as browser:
            page = await browser.open(world.authorize_url(client_id, pkce))
            page = await browser.submit(page, press=("decision", "allow"))
            page = await browser.submit(page, {"login": USER, "password": PASSWORD})
            page = await browser.submit(page)
        code = page.url.partition("code=")[2].partition("&")[0]
        jwt = (await world.redeem(client_id, code, pkce)).json()["access_token"]

        async def made(**wish: str) -> str:
            answer = await world.exchange(NOTES_SERVER, jwt, audience="orders", **wish)
            assert answer.status == 200, answer.text
            return str(answer.json()["access_token"])

        async def introspected(token: str) -> dict[str, Any]:
            fields = {"token": token}
            pair = f"tokenward:{quote('upstream secret canary')}".encode()
            credentials = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
            url = f"{issuer}/token/introspection"
            async with world.http.post(url, data=fields, headers=credentials) as answer:
                return dict(await answer.json())

        whole = await introspected(await made())
        assert (whole["aud"], whole["scope"]) == (["orders", "billing"], "orders.read orders.write")
        narrow = await made(target_audience="billing", scope="orders.read")
        said = await introspected(narrow)
        assert (said["active"], said["aud"], said["scope"]) == (True, "billing", "orders.read")
        assert await made(scope="orders.read", target_audience="billing") == narrow
        fields = {"token": jwt, "client_id": client_id}
        assert (await world.call("POST", "/oauth/revoke", data=fields)).status == 200
        await world.server.drain()
        assert (await introspected(narrow)) == {"active": False}
