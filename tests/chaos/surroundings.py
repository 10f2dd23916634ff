"""What stands around the replicas: the way to the upstream, its moods, and the processes."""

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Set
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from demo.upstream import FakeUpstream
from demo.upstream.app import Interference
from tests.support.lost_answers import Acted, newest_token, presented_in_vain
from tests.support.storage_fixtures import ROOT


class Gate:
    """A TCP way to the upstream that can be shut: then connections are refused.

    Connections that the kernel has accepted and we have not are reset then, maybe after the whole
    request was sent. The upstream has seen none of them.
    """

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
        self._server: asyncio.Server | None = None
        self._ways: set[asyncio.Task[None]] = set()
        self.resets = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._let_in, "127.0.0.1", self._port)

    def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A task that nobody holds may be collected, and its connection with it."""
        way = asyncio.create_task(self._forward(reader, writer))
        self._ways.add(way)
        way.add_done_callback(self._ways.discard)

    async def shut(self) -> None:
        if self._server is not None:
            self.resets += self._waiting()
            self._server.close()
            self._server = None

    def _waiting(self) -> int:
        """How many connections wait in the accept queue: Linux gives them no inode yet."""
        own, established = f"0100007F:{self._port:04X}", "01"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return sum(row[1] == own and row[3] == established and row[9] == "0" for row in rows)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
            back.close()
        writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await source.read(65536):
            sink.write(part)
            await sink.drain()
        sink.write_eof()


class Moods(Interference):
    """Counts what is presented, and in a bad mood refuses, or breaks off before or after acting.

    `served` are the access tokens that anybody was given.
    """

    def __init__(self, upstream: FakeUpstream, dice: random.Random, served: Set[str]) -> None:
        self._upstream, self._dice, self._served = upstream, dice, served
        self.mood: str | None = None
        self.taken: Counter[str] = Counter()
        self.refreshed_at: dict[int, list[float]] = {}
        self.last: dict[int, Acted] = {}
        self.broken_off: Counter[str] = Counter()
        self.successor_known = 0

    async def before(self, request: web.Request, refresh_token: str) -> None:
        self.successor_known += presented_in_vain(
            self._upstream, refresh_token, self._served.__contains__
        )
        if self.mood == "refuses":
            raise web.HTTPServiceUnavailable
        if self.mood == "breaks off before" and self._dice.random() < 0.3:
            self._break_off(request, "broken off before the upstream acted")
        await asyncio.sleep(self._dice.uniform(0, 0.02))

    async def after(self, request: web.Request, refresh_token: str) -> None:
        self.taken[refresh_token] += 1
        grant = self._upstream.grants._refresh_tokens[refresh_token]
        moment = asyncio.get_running_loop().time()
        self.refreshed_at.setdefault(id(grant), []).append(moment)
        acted = self.last[id(grant)] = Acted(newest_token(self._upstream, grant), moment)
        if self.mood == "breaks off after" and self._dice.random() < 0.3:
            acted.answer_lost = True
            self._break_off(request, "broken off after the upstream acted")
        await asyncio.sleep(self._dice.uniform(0, 0.02))

    def _break_off(self, request: web.Request, when: str) -> None:
        self.broken_off[when] += 1
        if request.transport is not None:
            request.transport.abort()
        raise web.HTTPServiceUnavailable


class Child:
    """A process of ours that may die and is started again."""

    def __init__(
        self, name: str, folder: Path, *command: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.folder = name, folder
        self._command, self._env = command, {"PATH": os.defpath} | dict(env or {})
        self._process: asyncio.subprocess.Process | None = None
        folder.mkdir(exist_ok=True)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.running else None

    async def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *self._command,
                cwd=ROOT, env=self._env, stdin=asyncio.subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)
            await self._process.wait()

    def outstanding(self) -> dict[str, str]:
        """Users whose claim the dead process had not settled, and where it was told to die."""
        journal = self.folder / "journal"
        claims: Counter[str] = Counter()
        step = "killed at a random moment"
        lines = journal.read_text().splitlines() if journal.exists() else []
        for line in lines:
            event, what = json.loads(line)
            if event == "died":
                step = f"killed {what}"
            else:
                # A process also settles claims that another one left behind.
                claims[what] = max(0, claims[what] + (1 if event == "claiming" else -1))
        journal.unlink(missing_ok=True)
        return {user: step for user, open_claims in claims.items() if open_claims > 0}
