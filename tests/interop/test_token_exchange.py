"""Tokens made by real servers that speak RFC 8693."""

from pathlib import Path
from typing import Any

import pytest

from demo.browser import Browser
from tests.interop.keycloak import PASSWORD, USER, keycloak
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
