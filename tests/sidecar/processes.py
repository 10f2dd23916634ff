"""Sidecars as operating-system processes, for tests."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Running:
    """A sidecar process that has said where it listens."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]]
    port: int
    ops_port: int

    async def events(self) -> list[str]:
        """Every event, after the process has ended."""
        assert self.process.stderr is not None
        rest = (await self.process.stderr.read()).decode().splitlines()
        return [line["event"] for line in [*self.lines, *map(json.loads, rest)]]


async def start(variables: Mapping[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *(arguments or ("-m", "sidecar")),
        env=dict(variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(variables: Mapping[str, str], listeners: int = 2) -> AsyncIterator[Running]:
    process = await start(variables)
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    ports: dict[str, int] = {}
    try:
        while len(ports) < listeners:
            raw = await process.stderr.readline()
            assert raw, lines
            lines.append(json.loads(raw))
            if lines[-1]["event"] == "listening":
                ports[lines[-1]["listener"]] = lines[-1]["port"]
        yield Running(process, lines, ports["local"], ports["ops"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, list[dict[str, Any]]]:
    _, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in stderr.decode().splitlines()]
