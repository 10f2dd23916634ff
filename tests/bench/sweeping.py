"""`python -m tests.bench sweeping`: reads of a release while housekeeping sweeps ended sessions.

In one process, as in an authserver: what the sweep does not leave to others, they wait for. The
quiet time before is in the column of the bare handler.
"""

import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from authserver.app import Authserver
from authserver.config.loader import load
from authserver.storage.contract import Database
from authserver.storage.engines.open import open_database
from authserver.storage.records import ConnectionKey, Session
from authserver.upstream.http_client import UpstreamHttp
from chassis import clock
from demo.layout import plan
from demo.material import write_material
from tests.bench.figures import ROUNDS, Figure, medians
from tests.bench.load import Load
from tests.support.storage_fixtures import OWNER, Store

_SESSIONS: Final = 1_000
_RATE: Final = 200.0
_QUIET_SECONDS: Final = 3.0


async def measure() -> list[Figure]:
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        layout = plan(Path(folder), ("notes",))
        write_material(layout)
        settings = load(layout.config)
        database = await open_database(settings.storage.url)
        server = Authserver(settings, database, UpstreamHttp(), clock.wall, audit_key=b"k" * 32)
        store = Store(database, keyring=settings.keyring())
        session, _ = await store.sign_in(expires_at=int(clock.wall()) + 86400)

        async def read() -> None:
            await store.connections.of_session(
                session.tsid,
                ConnectionKey(session.user_id, OWNER, "acme"),
                client_id=session.client_id,
                resource=session.resource,
                now=clock.wall(),
            )

        for _ in range(ROUNDS):
            await _add_ended(database, session)
            quiet = await _load(read, asyncio.create_task(asyncio.sleep(_QUIET_SECONDS)))
            busy = await _load(read, asyncio.create_task(server.housekeeping.sweep()))
            rounds.append((busy, quiet))
        await database.close()
    name = f"reads of a release at {_RATE:,.0f}/s while {_SESSIONS:,} sessions are swept"
    return medians(f"{name}, beside quiet", rounds, ("p50 ms", "p99 ms"))


async def _load(read: Callable[[], Awaitable[None]], meanwhile: asyncio.Task[None]) -> Load:
    """Latencies from the moment at which each read was due, until `meanwhile` is over."""
    latencies: list[float] = []

    async def timed(due: float) -> None:
        await read()
        latencies.append(time.perf_counter() - due)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as reads:
        while not meanwhile.done():
            due = begun + len(latencies) / _RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await reads.create_task(timed(due))
    meanwhile.result()
    cuts = statistics.quantiles(latencies, n=100)
    taken = time.perf_counter() - begun
    return Load(len(latencies) / taken, cuts[49] * 1000, cuts[98] * 1000, len(latencies))


async def _add_ended(database: Database, session: Session) -> None:
    """Sessions that are over, each of a user of its own who has no connection any more."""
    async with database.transaction() as transaction:
        row = await transaction.fetch_one("SELECT * FROM sessions WHERE tsid = ?", session.tsid)
        assert row is not None
        columns: list[str] = row.keys()  # type: ignore[attr-defined]  # sqlite3.Row
        places = ", ".join("?" * len(columns))
        for _ in range(_SESSIONS):
            user_id = secrets.token_urlsafe(32)
            await transaction.execute(
                "INSERT INTO users (user_id, upstream_issuer, subject, created_at)"
                " VALUES (?, 'https://departed.example', ?, 0)",
                user_id,
                user_id,
            )
            over = {"tsid": secrets.token_urlsafe(32), "user_id": user_id, "expires_at": 1}
            values = dict(zip(columns, row, strict=True)) | over
            await transaction.execute(f"INSERT INTO sessions VALUES ({places})", *values.values())
