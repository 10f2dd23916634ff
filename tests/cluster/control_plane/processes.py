"""Starts programs, waits until they answer, and ends each of them by its own process id."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Final

_READY_SECONDS: Final = 120.0  # on a busy machine; some seconds are usual
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.1
_TAIL_LINES: Final = 20

# What a program may need to start; everything else would be configuration from outside.
_INHERITED: Final = ("PATH", "HOME", "TMPDIR")


class ProcessFailed(Exception):
    """A program ended by itself, or it did not become ready."""


@dataclass(frozen=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        lines = self.log.read_text("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"The last lines of {self.log}:", *lines])


class Processes:
    """A context manager: at its end no program that it started is left running."""

    def __init__(self, logs: Path, stop_seconds: float = _STOP_SECONDS) -> None:
        self._logs, self._stop_seconds = logs, stop_seconds
        self._children: list[_Child] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The last one started ends first: none then waits for another that has gone."""
        for child in reversed(self._children):
            _end(child.process, self._stop_seconds)

    @property
    def pids(self) -> dict[str, int]:
        return {child.name: child.process.pid for child in self._children}

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        """Run `command` with its output in `<logs>/<name>.log`."""
        log = self._logs / f"{name}.log"
        inherited = {key: os.environ[key] for key in _INHERITED if key in os.environ}  # noqa: TID251
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(command),
                env=inherited,
                cwd=self._logs,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in a terminal reaches us alone
            )
        self._children.append(_Child(name, process, log))

    def wait_until(self, name: str, ready: Callable[[], bool]) -> None:
        """Return when `ready()` holds; raises ProcessFailed when a program ends or it is late."""
        end = monotonic() + _READY_SECONDS
        while not ready():
            self.check()
            if monotonic() > end:
                child = next(child for child in self._children if child.name == name)
                late = f"{name} is not ready after {_READY_SECONDS:.0f} s"
                raise ProcessFailed(f"{late}\n{child.last_words()}")
            sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raises ProcessFailed when a program has ended by itself."""
        for child in self._children:
            if (code := child.process.poll()) is not None:
                message = f"{child.name} ended by itself with code {code}"
                raise ProcessFailed(f"{message}\n{child.last_words()}")


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask the process group to end: the program may be a wrapper that waits for another."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:  # else its process id may be another's by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
