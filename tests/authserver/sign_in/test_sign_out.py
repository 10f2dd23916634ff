"""The front page says who is signed in, and only its own form ends that."""

from pathlib import Path

import pytest

from demo.forms import parse_forms
from tests.support.browser_logins import home, session_of, sign_out
from tests.support.database_file import count, sql
from tests.support.deployment import deployed


async def test_signing_out_ends_the_browser_session_and_nothing_else(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        connected = await world.signed_in()
        cookie = await session_of(world)
        assert "You are signed in" in (await home(world, cookie)).text
        answer = await sign_out(world, cookie, Sec_Fetch_Site="same-origin")
        assert (answer.status, answer.headers["Location"]) == (303, f"{world.issuer}/")
        assert "Max-Age=0" in answer.headers["Set-Cookie"]
        assert "You are not signed in" in (await home(world, cookie)).text, (
            "the cookie is worthless"
        )
        refreshed = await world.refresh(connected.client_id, connected.refresh_token)
        assert refreshed.status == 200, "applications stay connected"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_another_site_signs_nobody_out(tmp_path: Path, site: str) -> None:
    async with deployed(tmp_path) as world:
        cookie = await session_of(world)
        answer = await sign_out(world, cookie, Sec_Fetch_Site=site)
        assert (answer.status, answer.headers.get("Location")) == (403, None)
        assert "You are signed in" in (await home(world, cookie)).text


async def test_a_form_without_the_sessions_own_token_signs_nobody_out(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice, bob = await session_of(world), await session_of(world, "bob")
        (form,) = parse_forms((await home(world, bob)).text)
        for token in ("", "x", form.fields["token"]):
            assert (await sign_out(world, alice, token)).status == 403
        assert (await sign_out(world, "tokenward-session=made-up", "x")).status == 403
        nobody = await world.call("POST", "/sign-out", data={"token": "x"})
        assert nobody.status == 403
        assert nobody.headers["Content-Type"].startswith("text/html")
        assert "You are signed in" in (await home(world, alice)).text


async def test_a_get_signs_nobody_out(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        cookie = await session_of(world)
        assert (await world.call("GET", "/sign-out", headers={"Cookie": cookie})).status == 405
        assert await count(tmp_path, "browser_sessions") == 1


async def test_an_issuer_with_a_path_has_its_page_there(tmp_path: Path) -> None:
    async with deployed(tmp_path, issuer="http://127.0.0.1:9/auth") as world:
        base = world.issuer
        for path in ("/auth", "/auth/"):
            assert (await world.call("GET", f"{base}{path}")).status == 200
        assert (await world.call("GET", f"{base}/")).status == 404


async def test_the_accounts_name_is_sealed_and_in_no_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        upstream = {
            "name": "acme",
            "type": "oauth2",
            "authorizationEndpoint": f"{world.upstream.issuer}/authorize",
            "tokenEndpoint": f"{world.upstream.issuer}/token",
            "userinfoEndpoint": f"{world.upstream.issuer}/api/user",
            "subjectField": "id",
            "clientId": "tokenward",
            "clientSecretFile": str(tmp_path / "upstream-secret"),
        }
        await world.reconfigure(upstreams=[upstream])
        cookie = await session_of(world)
        assert "signed in as <strong>alice</strong> at acme" in (await home(world, cookie)).text
        ((sealed,),) = await sql(tmp_path, "SELECT sealed_account FROM users")
        assert b"alice" not in sealed
        signed_in = await world.signed_in()
        assert "alice" not in signed_in.access_token
        await sql(tmp_path, "UPDATE users SET sealed_account = ?", sealed[:-1] + b"\0")
        answer = await home(world, cookie)
        assert (answer.status, "alice" in answer.text) == (200, False)
        assert "You are signed in" in answer.text, "an unreadable name costs nobody a sign-in"
