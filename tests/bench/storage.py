"""`python -m tests.bench.storage`: what each verb costs, beside the least that a read costs."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import uvloop

from authserver.oauth.exchange_target import ExchangeTarget
from authserver.storage.contract import Database
from authserver.storage.records import ClientRegistration, ConnectionKey
from tests.support.postgresql import PostgresqlServer
from tests.support.storage_fixtures import NOW, Place, Store, new_refresh_token, tokens

_TIMES: Final = 200
_TASKS: Final = 16

Verb = Callable[[int], Awaitable[object]]


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        PostgresqlServer() as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        print("| engine | verb | us alone | times `SELECT 1` | per second, 16 tasks |")
        print("|---|---|---:|---:|---:|")
        runner.run(_measure("SQLite", Place(f"sqlite://{folder}/tokenward.db")))
        url = runner.run(server.create_database())
        runner.run(_measure("PostgreSQL", Place(url, Path(server.password_file))))


async def _measure(engine: str, place: Place) -> None:
    database = await place.open()
    store = Store(database)
    least = 0.0
    for name, verb in (await _verbs(store, database)).items():
        alone = await _alone(verb)
        least = least or alone
        many = await _together(verb)
        print(f"| {engine} | {name} | {alone * 1e6:.0f} | {alone / least:.1f} | {many:,.0f} |")
    if engine == "PostgreSQL":
        await _sizes(database)
    await database.close()


async def _verbs(store: Store, database: Database) -> dict[str, Verb]:
    total = 2 * _TIMES + 10
    connected = [await store.connected() for _ in range(total)]
    signed_in = [await store.sign_in() for _ in range(total)]
    presented = [new_refresh_token() for _ in range(total)]
    session = signed_in[0][0]
    at = ConnectionKey(session.user_id, session.owner, "acme")

    async def read(_: int) -> object:
        return await store.connections.of_session(
            session.tsid, at, client_id=session.client_id, resource=session.resource, now=NOW
        )

    target = ExchangeTarget(("orders",), (), ("read",))
    parent = await store.connections.get(at)
    assert parent is not None
    registration = ClientRegistration("https://acme.example.com", "client")
    made_at = ConnectionKey(
        session.user_id, session.owner, "orders", "acme", target.digest("server", "client")
    )
    made = await store.exchanged_tokens.prepare(
        made_at, parent, registration, asked_scope="read", asked_audience="orders", now=NOW
    )
    assert made is not None
    await store.claims.claim(made, "claim", NOW)
    await store.claims.swap(made, "claim", tokens())
    await database.write("UPDATE sessions SET upstreams = ?", "acme orders")

    async def read_made(_: int) -> object:
        return await store.exchanged_tokens.of_session(
            session.tsid, made_at, client_id=session.client_id, resource=session.resource, now=NOW
        )

    async def redeem(n: int) -> object:
        return await store.codes.redeem(
            signed_in[n][1], now=NOW, session_expires_at=NOW + 9, refresh_token=presented[n]
        )

    async def rotate(n: int) -> object:
        return await store.refresh_tokens.rotate(
            presented[n].token_hash, new_refresh_token(), now=NOW, grace=30
        )

    async def refresh(n: int) -> object:
        await store.claims.claim(connected[n], "claim", NOW)
        return await store.claims.swap(connected[n], "claim", tokens())

    return {
        "`SELECT 1`": lambda _: database.fetch_one("SELECT 1 AS one"),
        "release: session and connections": read,
        "release: session and an exchanged token": read_made,
        "refresh: claim and swap": refresh,
        "code: redeem": redeem,
        "refresh token: rotate": rotate,
        "sign-in, whole": lambda _: store.sign_in(),
    }


async def _alone(verb: Verb) -> float:
    taken = []
    for n in range(_TIMES):
        begun = time.perf_counter()
        await verb(n)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


async def _together(verb: Verb) -> float:
    numbers = iter(range(_TIMES, 2 * _TIMES))

    async def work() -> None:
        for n in numbers:
            await verb(n)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(_TASKS)))
    return _TIMES / (time.perf_counter() - begun)


async def _sizes(database: Database) -> None:
    """Bytes on disk per row, indexes included."""
    print("\n| table | rows | bytes per row, with indexes |\n|---|---:|---:|")
    for table in ("users", "sessions", "codes", "refresh_tokens", "connections"):
        row = await database.fetch_one(
            f"SELECT COUNT(*) AS n, pg_total_relation_size('{table}') AS size FROM {table}"
        )
        assert row is not None
        print(f"| {table} | {row['n']} | {row['size'] / max(1, row['n']):.0f} |")


if __name__ == "__main__":
    main()
