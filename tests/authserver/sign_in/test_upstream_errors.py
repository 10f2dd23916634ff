"""A failed sign-in says who said no: the person, an outage, or the set-up, and to whom it may."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.database_file import count, sql
from tests.support.deployment import Answer, Deployment, Pkce, deployed
from tests.support.sign_in_steps import ask, consent, finish, query_of, return_from_upstream
from tests.support.two_upstreams import configured, register_us, two_upstreams

SCHEME = "cursor://anysphere.cursor-mcp/oauth/callback"


def acme(world_issuer: str, **changes: object) -> list[dict[str, object]]:
    return [
        {
            "name": "acme",
            "displayName": "Acme Works",
            "type": "oidc",
            "issuer": world_issuer,
            "clientId": "tokenward",
            "clientSecretFile": "upstream-secret",
        }
        | changes
    ]


async def _returned(world: Deployment, scheme: str = SCHEME, /, **changed: str) -> Answer:
    """What our callback answers when the upstream's answer is changed like this."""
    client = await world.register(redirect_uris=[scheme])
    url = world.authorize_url(client["client_id"], Pkce(), redirect_uri=scheme)
    returning = await return_from_upstream(world, url)
    query = {name: value for name, value in (returning.query | changed).items() if value}
    callback = f"{world.issuer}/oauth/callback/acme?{urlencode(query)}"
    return await finish(world, replace(returning, callback=callback))


def _error_of(page: Answer) -> str:
    """The error that the page of an application with its own scheme hands over."""
    (link,) = {part.split('"')[0] for part in page.text.split('href="')[1:] if SCHEME in part}
    return query_of(link.replace("&amp;", "&"))["error"]


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("access_denied", "access_denied", "You declined at acme"),
        ("user_cancelled_login", "access_denied", "You declined at acme"),
        ("temporarily_unavailable", "temporarily_unavailable", "acme cannot be used just now"),
        ("server_error", "server_error", "do not work together"),
        ("invalid_scope", "server_error", "do not work together"),
        ("unauthorized_client", "server_error", "do not work together"),
        ("login_required", "server_error", "do not work together"),
        ("something-made-up", "server_error", "do not work together"),
    ],
)
async def test_each_error_of_an_upstream_reaches_client_person_and_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: str, error: str, words: str
) -> None:
    caplog.set_level(logging.INFO, "tokenward")
    async with deployed(tmp_path) as world:
        page = await _returned(world, error=said, code="")
        assert page.status == 200
        assert _error_of(page) == error
        assert words in page.text
        assert ("You chose not to connect" in page.text) is False
        assert page.headers["X-Request-Id"] in page.text
    assert "something-made-up" not in caplog.text
    logged = [record for record in caplog.records if _field(record, "upstream") == "acme"]
    level = logging.INFO if error == "access_denied" else logging.WARNING
    assert level in {record.levelno for record in logged}


def _field(record: logging.LogRecord, name: str) -> Any:
    return getattr(record, "fields", {}).get(name)


async def test_a_wrong_client_secret_is_a_fault_of_the_set_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        (tmp_path / "wrong-secret").write_text("another secret\n")
        wrong = acme(world.upstream.issuer, clientSecretFile=str(tmp_path / "wrong-secret"))
        await world.reconfigure(upstreams=wrong)
        page = await _returned(world)
        assert _error_of(page) == "server_error"
        assert "Acme Works and this server do not work together" in page.text
        assert page.headers["X-Request-Id"] in page.text
        assert await count(tmp_path, "sessions") == 0
    (warning,) = [r for r in caplog.records if r.getMessage() == "upstream_sign_in_failed"]
    assert warning.levelno == logging.WARNING
    assert _field(warning, "upstream") == "acme"
    assert "another secret" not in caplog.text


async def test_a_code_that_the_upstream_refuses_is_not_a_no_of_the_user(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        page = await _returned(world, code="made-up")
        assert _error_of(page) == "server_error"
        assert "You chose" not in page.text
        assert "You declined" not in page.text


async def test_a_no_at_our_page_is_told_apart_from_one_at_the_upstream(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        client = await world.register(redirect_uris=[SCHEME])
        url = world.authorize_url(client["client_id"], Pkce(), redirect_uri=SCHEME)
        page = await consent(world, await ask(world, url), "deny")
        assert "You chose not to connect" in page.text
        assert _error_of(page) == "access_denied"


async def test_a_linked_upstream_that_fails_is_named_and_remembered_for_the_session(
    tmp_path: Path,
) -> None:
    async with two_upstreams() as (first, second):
        settings = configured(first, second)
        settings["upstreams"][1]["displayName"] = "Slack"
        async with deployed(tmp_path, **settings) as world:
            register_us(world, first, second)
            client = await world.register(redirect_uris=[SCHEME])
            url = world.authorize_url(client["client_id"], Pkce(), redirect_uri=SCHEME)
            returning = await return_from_upstream(world, url)
            onward = (await finish(world, returning)).headers["Location"]
            query = urlencode({"state": query_of(onward)["state"], "error": "access_denied"})
            callback = f"{world.issuer}/oauth/callback/second?{query}"
            page = await finish(world, replace(returning, callback=callback))
            assert "You are connected, except Slack" in page.text
            rows = await sql(tmp_path, "SELECT upstreams, when_needed FROM sessions")
            assert rows == [("first second", "second")]


async def test_a_whole_sign_in_names_its_upstreams_and_needs_none_later(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await world.signed_in()
        rows = await sql(tmp_path, "SELECT upstreams, when_needed FROM sessions")
        assert rows == [("acme", "")]


async def test_an_error_description_names_the_request_and_nothing_of_the_upstream(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        answer = await _returned(
            world, "http://127.0.0.1/callback", error="server_error", error_description="canary"
        )
        told = query_of(answer.headers["Location"])
        assert told["error"] == "server_error"
        assert answer.headers["X-Request-Id"] in told["error_description"]
        assert "canary" not in json.dumps(told)
        assert urlsplit(answer.headers["Location"]).netloc == "127.0.0.1"
