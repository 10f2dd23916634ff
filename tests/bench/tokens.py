"""How many users can sign in, and how many clients refresh? Public listener, both engines.

A flow is what a client and a browser do for one token: authorization request, consent, callback
with the upstream's redemption, and the code's redemption. The upstream is a process of its own.
"""

import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlencode

import aiohttp

from demo.browser import Browser
from demo.layout import HOST
from tests.bench.figures import ROUNDS, SECONDS, Figure
from tests.bench.load import Load, drive, post
from tests.bench.release import bare_server
from tests.bench.world import running
from tests.support.deployment import CALLBACK, Pkce, walk
from tests.support.postgresql import PostgresqlServer

CONNECTIONS: Final = 8
_ANSWER: Final = b'{"access_token":"' + b"x" * 500 + b'","token_type":"Bearer","expires_in":900}'


class Site(NamedTuple):
    """Where a client signs in, and what for."""

    issuer: str
    resource: str


async def measure() -> list[Figure]:
    with PostgresqlServer() as server:
        url = await server.create_database()
        postgresql: dict[str, object] = {"url": url, "passwordFile": str(server.password_file)}
        return [*await _on("SQLite", None), *await _on("PostgreSQL", postgresql)]


async def _on(engine: str, storage: dict[str, object] | None) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), storage) as world, aiohttp.ClientSession() as http:
            bare = await bare_server(world, "bare-tokens", _ANSWER)
            site = Site(world.layout.issuer, world.server.resource)
            client_id = await registered(site, http)
            flows = await _beside(bare, lambda seconds: sign_ins(site, http, client_id, seconds))
            grants = await _beside(
                bare, lambda seconds: refresh_grants(site, http, client_id, seconds)
            )
            return [
                Figure(f"authorize to token, {CONNECTIONS} users, {engine}", "flows/s", *flows),
                Figure(f"refresh grants, {CONNECTIONS} clients, {engine}", "grants/s", *grants),
            ]


async def _beside(bare: int, ours: Callable[[float], Awaitable[float]]) -> tuple[float, float]:
    """Medians of alternating rounds: ours, and a bare handler's requests per second."""
    mine: list[float] = []
    yardstick: list[Load] = []
    request = post("/", b"x=1", {"Host": HOST, "Content-Type": "application/x-www-form-urlencoded"})
    for _ in range(ROUNDS):
        mine.append(await ours(SECONDS))
        yardstick.append(await drive(HOST, bare, request, connections=CONNECTIONS, seconds=SECONDS))
    return statistics.median(mine), statistics.median(load.per_second for load in yardstick)


async def sign_ins(
    site: Site, http: aiohttp.ClientSession, client_id: str, seconds: float
) -> float:
    """Flows per second of CONNECTIONS users, in as many seconds."""
    until = time.perf_counter() + seconds

    async def user() -> int:
        done = 0
        while time.perf_counter() < until:
            await _signed_in(site, http, client_id)
            done += 1
        return done

    return await _per_second(user)


async def refresh_grants(
    site: Site, http: aiohttp.ClientSession, client_id: str, seconds: float
) -> float:
    """Grants per second of CONNECTIONS clients, in as many seconds."""
    tokens = [await _signed_in(site, http, client_id) for _ in range(CONNECTIONS)]
    until = time.perf_counter() + seconds
    waiting = iter(tokens)

    async def client() -> int:
        token, done = next(waiting), 0
        while time.perf_counter() < until:
            fields = {
                "grant_type": "refresh_token",
                "client_id": client_id,
                "refresh_token": token,
            }
            async with http.post(f"{site.issuer}/oauth/token", data=fields) as answer:
                token = (await answer.json())["refresh_token"]
            done += 1
        return done

    return await _per_second(client)


async def _per_second(work: Callable[[], Awaitable[int]]) -> float:
    begun = time.perf_counter()
    done = await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return sum(done) / (time.perf_counter() - begun)


async def registered(site: Site, http: aiohttp.ClientSession) -> str:
    """The client id of a new client."""
    body = {
        "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
    }
    async with http.post(f"{site.issuer}/oauth/register", json=body) as answer:
        return str((await answer.json())["client_id"])


async def _signed_in(site: Site, http: aiohttp.ClientSession, client_id: str) -> str:
    """A whole flow in a browser of its own; the refresh token it ends with."""
    pkce = Pkce()
    query = urlencode(
        {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "resource": site.resource,
            "code_challenge": pkce.challenge,
            "code_challenge_method": "S256",
            "state": secrets.token_hex(4),
        }
    )
    async with Browser(leave_at=CALLBACK) as browser:
        answer = await walk(browser, f"{site.issuer}/oauth/authorize?{query}", "alice")
    fields = {
        "grant_type": "authorization_code",
        "client_id": client_id,
        "code": answer["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": pkce.verifier,
    }
    async with http.post(f"{site.issuer}/oauth/token", data=fields) as redeemed:
        return str((await redeemed.json())["refresh_token"])


if __name__ == "__main__":
    from tests.bench.figures import table

    print(table(asyncio.run(measure())))
