"""What stands around the replicas: the way to the upstream, its moods, and the processes."""

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from demo.upstream import FakeUpstream
from demo.upstream.app import Interference
from tests.support.storage_fixtures import ROOT


class Gate:
    """A TCP way to the upstream that can be shut: then connections are refused."""

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)

    async def shut(self) -> None:
        if self._server is not None:
            # Whom the kernel has let in already would be cut off after having spoken: that is
            # another fault than this one. Two turns of the loop are enough to take them in.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._server.close()
            self._server = None

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await source.read(65536):
            sink.write(part)
            await sink.drain()
        sink.write_eof()


class Moods(Interference):
    """Counts what is presented, and in a bad mood refuses, or breaks off before or after acting."""

    def __init__(self, upstream: FakeUpstream, dice: random.Random) -> None:
        self._upstream, self._dice = upstream, dice
        self.mood: str | None = None
        self.presented: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.refreshed_at: dict[int, list[float]] = {}
        self.broken_off: dict[int, tuple[str, int]] = {}

    async def before(self, request: web.Request, refresh_token: str) -> None:
        self.presented[refresh_token] += 1
        if self.mood == "refuses":
            raise web.HTTPServiceUnavailable
        if self.mood == "breaks off before" and self._dice.random() < 0.3:
            self._break_off(request)  # no cause: the token is presented again
        await asyncio.sleep(self._dice.uniform(0, 0.02))

    async def after(self, request: web.Request, refresh_token: str) -> None:
        self.taken[refresh_token] += 1
        grant = self.grant_id(refresh_token)
        self.refreshed_at.setdefault(grant, []).append(asyncio.get_running_loop().time())
        if self.mood == "breaks off after" and self._dice.random() < 0.3:
            self.broken_off[grant] = (
                "the upstream acted and its answer was lost",
                len(self.refreshed_at[grant]),
            )
            self._break_off(request)
        await asyncio.sleep(self._dice.uniform(0, 0.02))

    def grant_id(self, refresh_token: str) -> int:
        return id(self._upstream.grants._refresh_tokens.get(refresh_token))

    def _break_off(self, request: web.Request) -> None:
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
