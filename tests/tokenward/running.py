"""Runs the command line as an operator does, in this process or as one of its own."""

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis import clock
from tests.fakes.clock import ManualClock
from tests.support.deployment import Deployment
from tokenward.__main__ import main


@dataclass(frozen=True)
class Ran:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        members = json.loads(self.out)
        assert isinstance(members, dict)
        return members


async def run(*arguments: str | Path) -> Ran:
    """In this process, on a thread: the authserver goes on working."""
    return await asyncio.to_thread(_run, [str(argument) for argument in arguments])


async def on(world: Deployment, *arguments: str) -> Ran:
    """A command with the configuration and the clock of a deployment."""
    with _clock(world.clock):
        return await run(*arguments, "--config", world.folder / "authserver.yaml")


async def spawn(*arguments: str | Path, fed: bytes = b"") -> Ran:
    """As a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tokenward", *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(fed)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def _run(arguments: list[str]) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as left:  # argparse leaves by itself
            code = int(left.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


@contextmanager
def _clock(manual: ManualClock) -> Iterator[None]:
    before = clock.wall
    clock.wall = manual  # read at each call
    try:
        yield
    finally:
        clock.wall = before
