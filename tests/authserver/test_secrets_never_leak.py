"""A whole journey whose secrets are all known: none of them is found where it does not belong."""

import base64
import io
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client import generate_latest

from chassis import logs
from tests.support.database_file import sql
from tests.support.deployment import CALLBACK, Answer, Deployment, Pkce, deployed
from tests.support.sign_in_steps import ask, consent, finish, query_of, return_from_upstream

STATE = "client-state-canary"


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    """Everything the process logs, at its most talkative, as it reaches stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(io.StringIO()) as written:
        logs.configure("authserver", "debug")
    root.setLevel(logging.DEBUG)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@dataclass
class Ledger:
    """Every answer of the journey, and every secret with the answers it was meant for."""

    answers: dict[str, Answer] = field(default_factory=dict)
    meant_for: dict[str, set[str]] = field(default_factory=dict)

    def keep(self, name: str, answer: Answer) -> Answer:
        self.answers[name] = answer
        return answer

    def secret(self, value: str, *meant_for: str) -> str:
        assert len(value) >= 8, value
        self.meant_for.setdefault(value, set()).update(meant_for)
        return value

    def strayed(self) -> list[tuple[str, str]]:
        """Each answer with a secret that was not meant for it."""
        return [
            (name, secret)
            for name, answer in self.answers.items()
            for secret, meant_for in self.meant_for.items()
            if name not in meant_for and secret in f"{list(answer.headers.items())}{answer.text}"
        ]

    def found_in(self, text: str) -> list[str]:
        return [secret for secret in self.meant_for if secret in text]


async def test_no_secret_of_a_journey_strays(tmp_path: Path, log_lines: io.StringIO) -> None:
    async with deployed(tmp_path) as world:
        ledger = await journey(world)
        assert len(ledger.meant_for) >= 19
        assert ledger.strayed() == []
        stored = world.stored_bytes().decode("latin-1")
        assert "tw-" in stored
        assert ledger.found_in(stored) == []
        metrics = generate_latest(world.server.registry).decode()
        assert "tokenward_authserver_releases_total" in metrics
        assert ledger.found_in(metrics) == []
    logged = log_lines.getvalue()
    for event in ("code_replayed", "user_denied", "no_such_transaction", "audit", "storage_failed"):
        assert event in logged
    assert ledger.found_in(logged) == []


async def journey(world: Deployment) -> Ledger:
    """Sign in, use and misuse every secret once, and end the session."""
    ledger, pkce = Ledger(), Pkce()
    keep, secret = ledger.keep, ledger.secret
    secret("upstream secret canary")
    secret((world.folder / "k1").read_text())
    secret((world.folder / "signing.pem").read_text().splitlines()[1])
    secret(STATE, "denied", "returned", "faulty")
    secret(pkce.verifier)

    client = await world.register(token_endpoint_auth_method="client_secret_post")
    secret(client["client_secret"])
    url = world.authorize_url(client["client_id"], pkce, state=STATE)
    keep("faulty", await world.call("GET", f"{url}&response_mode=fragment"))
    keep("doubled", await world.call("GET", f"{url}&state={STATE}"))

    asked = await ask(world, url)
    keep("asked", asked.page)
    secret(asked.transaction, "asked")
    secret(asked.cookie.partition("=")[2], "asked")
    keep("denied", await consent(world, asked, "deny"))
    keep("denied again", await consent(world, asked, "deny"))

    code = await sign_in(world, ledger, url)
    await use(world, ledger, client, code, pkce)
    return ledger


async def sign_in(world: Deployment, ledger: Ledger, url: str) -> str:
    returning = await return_from_upstream(world, url)
    ledger.secret(returning.cookie.partition("=")[2])
    ledger.secret(returning.query["state"])
    ledger.secret(returning.query["code"])
    elsewhere = f"/oauth/callback/other?{urlsplit(returning.callback).query}"
    ledger.keep(
        "mixed up", await world.call("GET", elsewhere, headers={"Cookie": returning.cookie})
    )
    returned = ledger.keep("returned", await finish(world, returning))
    ledger.keep("returned again", await finish(world, returning))
    return ledger.secret(query_of(returned.headers["Location"])["code"], "returned")


async def use(
    world: Deployment, ledger: Ledger, client: dict[str, str], code: str, pkce: Pkce
) -> None:
    who = {name: client[name] for name in ("client_id", "client_secret")}
    by_code = who | {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    proof = {"code_verifier": pkce.verifier}
    ledger.keep("unproven", await world.token(**by_code))
    first = await tokens(world, ledger, "redeemed", by_code | proof)
    by_token = who | {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = await tokens(world, ledger, "refreshed", by_token)
    ledger.secret(second["refresh_token"], "repeated")
    await tokens(world, ledger, "repeated", by_token)

    released = await world.exchange("mcp-servers/notes", first["access_token"])
    ledger.secret(ledger.keep("released", released).json()["access_token"], "released")
    ledger.keep("withheld", await world.exchange("mcp-servers/tasks", first["access_token"]))
    for token in world.upstream.grants._refresh_tokens:
        ledger.secret(token)

    await sql(world.folder, "ALTER TABLE refresh_tokens RENAME TO gone")
    ledger.keep("down", await world.token(**by_token))
    await sql(world.folder, "ALTER TABLE gone RENAME TO refresh_tokens")
    ledger.keep("replayed", await world.token(**by_code, **proof))
    ledger.keep("over", await world.token(**by_token))
    gone = who | {"token": second["refresh_token"]}
    pair = ledger.secret(base64.b64encode(f"{who['client_id']}:wrong".encode()).decode())
    basic = {"Authorization": f"Basic {pair}"}
    ledger.keep("wrong method", await world.call("POST", "/oauth/token", data={}, headers=basic))
    ledger.keep("revoked", await world.call("POST", "/oauth/revoke", data=gone))


async def tokens(
    world: Deployment, ledger: Ledger, name: str, fields: dict[str, str]
) -> dict[str, str]:
    answer: dict[str, str] = ledger.keep(name, await world.token(**fields)).json()
    ledger.secret(answer["access_token"], name)
    ledger.secret(answer["refresh_token"], name)
    return answer
