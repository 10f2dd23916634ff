"""The trail names who signed in, agreed, registered and signed out, without any identifier."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.browser_logins import session_of, sign_out
from tests.support.deployment import CALLBACK, NOTES, Pkce, deployed
from tests.support.forged_tokens import claims_of
from tests.support.sign_in_steps import ask, consent, finish, return_from_upstream


def events(caplog: pytest.LogCaptureFixture, *actions: str) -> list[dict[str, Any]]:
    """The events of these actions, in order."""
    found = [getattr(record, "fields", {}) for record in caplog.records]
    return [fields for fields in found if fields.get("action") in actions]


async def test_a_sign_in_leaves_consent_upstream_login_and_sign_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tokenward")
    async with deployed(tmp_path) as world:
        signed_in = await world.signed_in()
        user = claims_of(signed_in.access_token)["sub"]
        found = events(caplog, "consent", "upstream_login", "sign_in")
        assert [(e["action"], e["outcome"]) for e in found] == [
            ("consent", "success"),
            ("upstream_login", "success"),
            ("sign_in", "success"),
        ]
        assert {e["client"] for e in found} == {signed_in.client_id}
        assert {e["resource"] for e in found} == {NOTES}
        assert found[1]["upstream"] == "acme"
        assert found[2]["user"] == world.server._audit.pseudonym("user", user)
        assert user not in caplog.text
        (grant,) = events(caplog, "token_grant")
        assert grant["session"] == found[2]["session"]


async def test_a_no_is_refused_and_a_fault_is_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        await consent(world, await ask(world, url), "deny")
        (denied,) = events(caplog, "consent")
        assert (denied["outcome"], denied["reason"]) == ("refused", "user_denied")
        for error, outcome in (("access_denied", "refused"), ("server_error", "failed")):
            caplog.clear()
            returning = await return_from_upstream(world, url)
            query = urlencode({"state": returning.query["state"], "error": error})
            callback = f"{world.issuer}/oauth/callback/acme?{query}"
            await finish(world, replace(returning, callback=callback))
            found = events(caplog, "upstream_login", "sign_in")
            assert [(e["action"], e["outcome"], e["upstream"]) for e in found] == [
                ("upstream_login", outcome, "acme"),
                ("sign_in", outcome, "acme"),
            ]
            assert len({e["reason"] for e in found}) == 1


async def test_an_outage_before_the_upstream_is_reached_is_a_failed_sign_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = {"name": "acme", "type": "oidc", "issuer": "http://127.0.0.1:9", "clientId": "t"}
    async with deployed(tmp_path, upstreams=[nowhere]) as world:
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        await consent(world, await ask(world, url))
        found = events(caplog, "upstream_login", "sign_in")
        assert [(e["action"], e["outcome"]) for e in found] == [
            ("upstream_login", "failed"),
            ("sign_in", "failed"),
        ]


async def test_registrations_and_refusals_of_them_are_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tokenward")
    async with deployed(tmp_path) as world:
        client_id = (await world.register())["client_id"]
        body = {"redirect_uris": [CALLBACK], "contacts": 1}
        await world.call("POST", "/oauth/register", json=body)
        good, bad = events(caplog, "registration")
        assert (good["outcome"], good["client"]) == ("success", client_id)
        assert (bad["outcome"], bad["reason"]) == ("refused", "metadata_contacts")


async def test_a_sign_out_names_its_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tokenward")
    async with deployed(tmp_path) as world:
        cookie = await session_of(world)
        (signed_in,) = events(caplog, "sign_in")
        await sign_out(world, cookie)
        (signed_out,) = events(caplog, "sign_out")
        assert (signed_out["outcome"], signed_out["user"]) == ("success", signed_in["user"])


async def test_logins_are_counted_by_upstream_and_outcome(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await world.signed_in()
        url = world.authorize_url((await world.register())["client_id"], Pkce())
        for error in ("access_denied", "server_error", "server_error"):
            returning = await return_from_upstream(world, url)
            query = urlencode({"state": returning.query["state"], "error": error})
            callback = f"{world.issuer}/oauth/callback/acme?{query}"
            await finish(world, replace(returning, callback=callback))
        name = "tokenward_authserver_upstream_logins_total"
        counts = {
            outcome: world.server.registry.get_sample_value(
                name, {"upstream": "acme", "outcome": outcome}
            )
            for outcome in ("success", "refused", "failed")
        }
        assert counts == {"success": 1, "refused": 1, "failed": 2}
