"""An authserver that can be told at which step of a refresh to die, and what time it is.

`python -m tests.chaos.replica CONFIG FOLDER`: the folder's file `step` names the step at which
the next refresh ends this process, `clock` holds seconds to add to the time, and `journal` gets
a line before a claim is taken and one after it is settled.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, Final

import uvloop

from authserver.__main__ import serve
from authserver.config.loader import load
from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.engines.open import open_database
from authserver.upstream.http_client import Answer, RequestBody, UpstreamHttp
from chassis import clock, logs

STEPS: Final = (
    "before the claim",
    "after the claim",
    "before the call",
    "during the call",
    "after the answer",
    "after the swap",
)
_CLAIM: Final = "UPDATE connections SET refresh_claim = ?"
_SWAP: Final = "UPDATE connections SET generation = ?"
_SETTLED: Final = (
    "UPDATE connections SET refresh_claim = NULL",
    "UPDATE connections SET dead = 1",
)


class Orders:
    """What the harness wants of this process."""

    def __init__(self, folder: Path) -> None:
        self._step, self._clock = folder / "step", folder / "clock"
        self._journal = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def die_if(self, step: str) -> None:
        if self.next_step() == step:
            self._step.unlink()
            self.note("died", step)
            os.kill(os.getpid(), signal.SIGKILL)

    def next_step(self) -> str:
        with suppress(OSError):
            return self._step.read_text()
        return ""

    def note(self, event: str, what: object) -> None:
        os.write(self._journal, json.dumps([event, what]).encode() + b"\n")

    def now(self) -> float:
        with suppress(OSError, ValueError):
            return clock.wall() + float(self._clock.read_text())
        return clock.wall()


class StumblingDatabase:
    """The database, with a place to die before and after each statement of a refresh."""

    def __init__(self, database: Database, orders: Orders) -> None:
        self._database, self._orders = database, orders

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        return await self._database.fetch_one(sql, *arguments)

    async def look_up(self, sql: str, *arguments: object) -> Row | None:
        return await self._database.look_up(sql, *arguments)

    async def look_all_up(self, sql: str, *arguments: object) -> list[Row]:
        return await self._database.look_all_up(sql, *arguments)

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        return await self._database.fetch_all(sql, *arguments)

    def transaction(self) -> AbstractAsyncContextManager[Transactional]:
        return self._database.transaction()

    async def write_returning(self, sql: str, *arguments: object) -> Row | None:
        if sql.startswith(_CLAIM):
            return await self._claim(sql, arguments)
        return await self._database.write_returning(sql, *arguments)

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        await self._database.listen(channel, heard)

    async def close(self) -> None:
        await self._database.close()

    async def write(self, sql: str, *arguments: object) -> int:
        changed = await self._database.write(sql, *arguments)
        if sql.startswith(_SWAP):
            self._orders.note("settled", _user(sql, arguments))
            self._orders.die_if("after the swap")
        elif sql.startswith(_SETTLED):
            self._orders.note("settled", _user(sql, arguments))
        return changed

    async def _claim(self, sql: str, arguments: tuple[object, ...]) -> Row | None:
        self._orders.die_if("before the claim")
        self._orders.note("claiming", _user(sql, arguments))
        row = await self._database.write_returning(sql, *arguments)
        if row is None:
            self._orders.note("settled", _user(sql, arguments))
        else:
            self._orders.die_if("after the claim")
        return row


def _user(sql: str, arguments: tuple[object, ...]) -> object:
    """Whose connection a statement is about."""
    before, found, _ = sql.partition("user_id = ?")
    assert found
    return arguments[before.count("?")]


class StumblingHttp(UpstreamHttp):
    """The way to the upstream, with places to die on it."""

    def __init__(self, orders: Orders) -> None:
        super().__init__()
        self._orders = orders

    async def call(
        self, method: str, url: str, *, body: RequestBody | None = None, **options: Any
    ) -> Answer:
        if body is None or body.fields.get("grant_type") != "refresh_token":
            return await super().call(method, url, body=body, **options)
        self._orders.die_if("before the call")
        if self._orders.next_step() == "during the call":
            loop = asyncio.get_running_loop()
            loop.call_later(0.005, self._orders.die_if, "during the call")
        answer = await super().call(method, url, body=body, **options)
        self._orders.die_if("after the answer")
        return answer


async def main(config: Path, folder: Path) -> None:
    settings, orders = load(config), Orders(folder)
    logs.configure("authserver", "warning")
    database = await open_database(settings.storage.url, settings.storage.password)
    async with StumblingHttp(orders) as http:
        await serve(config, settings, StumblingDatabase(database, orders), http, orders.now)
    await database.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
