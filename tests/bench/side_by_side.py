"""Requests to this tree beside requests to an earlier build: both run, and short rounds take turns.

The load is the same for both, and comes from this tree. A ratio is the median of the ratios of the
rounds, so that a machine that is slow for a while is slow for both.
"""

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import uvloop

from demo.layout import HOST
from tests.bench import tokens
from tests.bench.http_servers import nginx_command, running
from tests.bench.load import Calls, Load, costing, drive
from tests.bench.memory import token_call, token_fields
from tests.bench.minting import Minter
from tests.bench.open_loop import steady
from tests.bench.release import exchange_call
from tests.bench.world import pin, workload_tls
from tests.bench.wrk import free_ports, run_wrk
from tests.support.postgresql import PostgresqlServer

_PROBE: Final = Path(__file__).with_name("world_probe.py")
_ROUNDS: Final = 15
_FEW_ROUNDS: Final = 7
_SECONDS: Final = 0.5
_LONGER_SECONDS: Final = 1.5
_CONNECTIONS: Final = 16
_RATE: Final = 1000.0
_UNSEEN_IN_A_ROUND: Final = 6_000  # more than it can use up
_STOPS_WITHIN_SECONDS: Final = 30


@dataclass(frozen=True)
class Build:
    """One tree's running processes."""

    issuer: str
    resource: str
    internal_port: int
    sidecar_port: int
    server_ca: str
    credential: str
    signing_key: str
    jwt: str
    authserver: int
    sidecar: int


class Row(NamedTuple):
    """Medians of this tree and of the other, and the median of the rounds' ratios."""

    what: str
    unit: str
    now: float
    before: float
    ratio: float


Measured = Callable[[Build], Awaitable[float]]


def measure(ours: Path, theirs: Path) -> list[Row]:
    """The rows of two trees, each a folder with its environment in `.venv`."""
    cores = os.sched_getaffinity(0)
    pin([0], core=1)
    try:
        return uvloop.run(_measured((ours, theirs)))
    finally:
        os.sched_setaffinity(0, cores)


async def _measured(trees: tuple[Path, Path]) -> list[Row]:
    rows: list[Row] = []
    with _both(trees, [None, None]) as builds:
        rows += await _of_sidecar(builds)
        rows += await _of_exchange(builds)
        rows += await _of_tokens(builds, "SQLite")
    with PostgresqlServer() as server:
        storages: list[dict[str, object] | None] = [
            {"url": await server.create_database(), "passwordFile": str(server.password_file)}
            for _ in trees
        ]
        with _both(trees, storages) as builds:
            for build in builds:
                await _exchange_rate(build)  # statements are prepared, caches filled
            what = "exchange, PostgreSQL, JWT seen"
            rows.append(await _row(what, "requests/s", builds, _exchange_rate))
            rows += await _of_tokens(builds, "PostgreSQL")
    return rows


async def _row(
    what: str, unit: str, builds: list[Build], measured: Measured, rounds: int = _ROUNDS
) -> Row:
    now: list[float] = []
    before: list[float] = []
    for turn in range(rounds):
        # The order changes, so that neither always runs after the other.
        for number in (0, 1) if turn % 2 else (1, 0):
            (before if number else now).append(await measured(builds[number]))
    ratios = [mine / its for mine, its in zip(now, before, strict=True)]
    return Row(
        what, unit, statistics.median(now), statistics.median(before), statistics.median(ratios)
    )


async def _of_sidecar(builds: list[Build]) -> list[Row]:
    what = f"cached token, {_CONNECTIONS} connections"
    rows = [await _row(what, "requests/s", builds, _cached_rate)]
    for unit, read in (("p50 ms", _p50), ("p99 ms", _p99)):
        at_a_rate = f"cached token at {_RATE:,.0f} requests/s"
        rows.append(await _row(at_a_rate, unit, builds, read, _FEW_ROUNDS))
    return [*rows, *await _beside_nginx(builds[0])]


async def _beside_nginx(build: Build) -> list[Row]:
    """nginx in the other build's place, which answers everything with the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        [port] = free_ports(1)
        command = nginx_command(Path(folder), port)
        if not command:
            return []
        async with running(command, port) as pid:
            pin([pid], core=0)
            builds = [build, replace(build, sidecar_port=port)]
            what = f"cached token, {_CONNECTIONS} connections, beside nginx"
            return [await _row(what, "requests/s", builds, _cached_rate)]


async def _cached_rate(build: Build) -> float:
    port = build.sidecar_port
    fields = token_fields(port, build.jwt)
    load = await run_wrk(port, "POST", "/v1/token", fields, b"{}", _CONNECTIONS, 1)
    if load is None:
        call = token_call(port, build.jwt)
        load = await drive(HOST, port, call, connections=_CONNECTIONS, seconds=1)
    return load.per_second


async def _p50(build: Build) -> float:
    return (await _at_a_rate(build)).p50


async def _p99(build: Build) -> float:
    return (await _at_a_rate(build)).p99


async def _at_a_rate(build: Build) -> Load:
    calls = repeat(token_call(build.sidecar_port, build.jwt))
    return await steady(HOST, build.sidecar_port, calls, rate=_RATE, seconds=2, lines=_CONNECTIONS)


async def _of_exchange(builds: list[Build]) -> list[Row]:
    what, unit = "exchange, SQLite, JWT", "CPU us/request"
    return [
        await _row(f"{what} seen", unit, builds, _seen_cpu),
        await _row(f"{what} never seen", unit, builds, _unseen_cpu),
    ]


async def _exchange(build: Build, calls: Calls) -> Load:
    tls = workload_tls(Path(build.server_ca), Path(build.credential))
    driving = drive(
        HOST, build.internal_port, calls, connections=_CONNECTIONS, seconds=_SECONDS, tls=tls
    )
    return await costing(build.authserver, driving)


async def _seen_cpu(build: Build) -> float:
    return (await _exchange(build, exchange_call(build.internal_port, build.jwt))).cpu


async def _exchange_rate(build: Build) -> float:
    return (await _exchange(build, exchange_call(build.internal_port, build.jwt))).per_second


async def _unseen_cpu(build: Build) -> float:
    mint = Minter(build.jwt, Path(build.signing_key))
    made = [exchange_call(build.internal_port, mint()) for _ in range(_UNSEEN_IN_A_ROUND)]
    calls = iter(made)
    load = await _exchange(build, calls)
    if next(calls, None) is None:
        raise ValueError("the JWTs did not last for the round")
    return load.cpu


async def _of_tokens(builds: list[Build], engine: str) -> list[Row]:
    return [
        await _row(f"authorize to token, {engine}", "flows/s", builds, _sign_in_rate, _FEW_ROUNDS),
        await _row(f"refresh grants, {engine}", "grants/s", builds, _grant_rate, _FEW_ROUNDS),
    ]


async def _sign_in_rate(build: Build) -> float:
    return await _at_the_site(build, tokens.sign_ins)


async def _grant_rate(build: Build) -> float:
    return await _at_the_site(build, tokens.refresh_grants)


async def _at_the_site(
    build: Build,
    measured: Callable[[tokens.Site, aiohttp.ClientSession, str, float], Awaitable[float]],
) -> float:
    site = tokens.Site(build.issuer, build.resource)
    async with aiohttp.ClientSession() as http:
        client_id = await tokens.registered(site, http)
        return await measured(site, http, client_id, _LONGER_SECONDS)


@contextmanager
def _both(
    trees: tuple[Path, Path], storages: Sequence[dict[str, object] | None]
) -> Iterator[list[Build]]:
    with ExitStack() as started:
        yield [
            started.enter_context(_started(tree, storage))
            for tree, storage in zip(trees, storages, strict=True)
        ]


@contextmanager
def _started(tree: Path, storage: dict[str, object] | None) -> Iterator[Build]:
    outside = os.environ  # noqa: TID251 - a child needs to find its programs
    environment = {name: outside[name] for name in ("PATH", "HOME") if name in outside}
    arguments = [] if storage is None else [f"--storage={json.dumps(storage)}"]
    process = subprocess.Popen(
        [str(tree / ".venv/bin/python"), str(_PROBE), *arguments],
        cwd=tree,
        env=environment | {"PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Build(**json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(_STOPS_WITHIN_SECONDS)
