"""Starts processes, waits until they are ready, and ends every one of them, by its own pid."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import aiohttp

READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 25.0  # the authserver drains for up to 20 s

_POLL_SECONDS: Final = 0.05
_TAIL_LINES: Final = 15
_ROOT: Final = Path(__file__).resolve().parent.parent

# What an interpreter may need to start; everything else would be configuration from outside.
_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A process may drain and exit 0, or drain and let the signal end it, as uvicorn does.
_CLEAN_EXITS: Final = (0, -signal.SIGTERM)


class ProcessFailed(Exception):
    """A process died or did not become ready."""


@dataclass(frozen=True)
class _Child:
    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def obituary(self) -> str:
        return f"{self.name} ended by itself with code {self.process.returncode}"

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        tail = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
        return f"The last lines of {self.log.name}:\n{tail}"


class Processes:
    """An async context manager: when the block ends, however it ends, nothing is left running.

    `problems` then lists what did not end cleanly. Each process gets only the environment given
    here, and a session of its own, so that Ctrl-C in a terminal reaches us first.
    """

    def __init__(self, logs: Path, *, stop_seconds: float = STOP_SECONDS) -> None:
        self.problems: list[str] = []
        self._logs, self._stop_seconds = logs, stop_seconds
        self._children: list[_Child] = []

    async def __aenter__(self) -> "Processes":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ended = [child for child in self._children if not child.running]
        running = [child for child in reversed(self._children) if child.running]
        for child in running:
            child.process.terminate()
        ends = await asyncio.gather(*(_end(child, self._stop_seconds) for child in running))
        self.problems.extend(child.obituary() for child in ended)
        self.problems.extend(problem for problem in ends if problem is not None)

    @property
    def pids(self) -> list[int]:
        return [child.process.pid for child in self._children]

    def pid_of(self, name: str) -> int:
        """The process id of the child that was started as `name`."""
        return next(child.process.pid for child in self._children if child.name == name)

    async def start(
        self, name: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Run `python -m module arguments` with its output in `<logs>/<name>.log`."""
        log = self._logs / f"{name}.log"
        inherited = {key: os.environ[key] for key in _INHERITED if key in os.environ}  # noqa: TID251
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                cwd=_ROOT,
                env={**inherited, **(environment or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._children.append(_Child(name, process, log))

    async def ready(self, name: str, url: str) -> None:
        """Wait until `url` answers 200; raises ProcessFailed when the process dies or is late."""
        child = next(child for child in self._children if child.name == name)
        try:
            async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession() as http:
                while not await _answers(http, url):
                    if not child.running:
                        raise ProcessFailed(child.obituary())
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise ProcessFailed(f"{name} is not ready after {READY_SECONDS:.0f} s") from None

    async def first_failure(self) -> None:
        """Wait for as long as every process runs; raises ProcessFailed when one ends."""
        waiting = [asyncio.ensure_future(child.process.wait()) for child in self._children]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waiting:
                wait.cancel()
        raise ProcessFailed(next(c.obituary() for c in self._children if not c.running))

    def last_words(self) -> list[str]:
        """The end of every log, to see what the processes thought."""
        return [child.last_words() for child in self._children]


def cancel_on_signals() -> asyncio.Event:
    """Cancel this task at the first signal, so that the processes it started end with it.

    Without this SIGTERM would leave them behind. Later signals change nothing: the end is
    bounded. Returns whether there was a signal.
    """
    interrupted, task, loop = asyncio.Event(), asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def interrupt() -> None:
        if not interrupted.is_set():
            interrupted.set()
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt)
    return interrupted


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def _end(child: _Child, seconds: float) -> str | None:
    """Wait for a process that was asked to end; what was not clean about its end."""
    try:
        async with asyncio.timeout(seconds):
            code = await child.process.wait()
    except TimeoutError:
        child.process.kill()
        await child.process.wait()
        return f"{child.name} ignored SIGTERM for {seconds:.0f} s and was killed"
    return None if code in _CLEAN_EXITS else f"{child.name} ended with code {code} after SIGTERM"
