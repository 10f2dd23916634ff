"""`python -m tests.bench.revocations`: how long a revocation takes to reach 200 pollers elsewhere.

Two authservers on one PostgreSQL, which they reach directly or through a PgBouncer. A client
revokes at the first, or an operator's command ends the session; 198 pollers in a process of their
own and two real sidecars follow the second. The time runs from the answer of `POST /oauth/revoke`,
or from the end of the command, to the drop: to the poller's answer, or to the sidecar's metric.
"""

import asyncio
import base64
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop
import yaml

from demo.layout import HOST, Layout, _free_ports, plan
from demo.material import write_material
from demo.processes import Processes, cancel_on_signals
from demo.stack import sidecar_environment, start_upstream
from tests.bench.figures import Figure, table
from tests.bench.world import lift_limits, sign_in
from tests.support.pgbouncer import PROGRAM as PGBOUNCER
from tests.support.pgbouncer import give_role_settings, new_database, pgbouncer
from tests.support.postgresql import USER, PostgresqlServer

_POLLERS: Final = 198
_ROUNDS: Final = 20
_COMMANDS: Final = 5  # each starts a process
_SCRAPE_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 60.0
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class _Way:
    """How authservers reach the database; `mode` is a pool mode of PgBouncer."""

    name: str
    mode: str | None = None
    options: str = ""


_WAYS: Final = (
    _Way("directly"),
    _Way("through PgBouncer, mode session", "session"),
    _Way("through PgBouncer, mode transaction", "transaction", "?prepared_statements=false"),
)


async def measure() -> list[Figure]:
    """For each way: the median, the 99th percentile and the longest time, in milliseconds."""
    ways = [way for way in _WAYS if way.mode is None or PGBOUNCER is not None]
    return [figure for way in ways for figure in await _measure(way)]


async def _measure(way: _Way) -> list[Figure]:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, PostgresqlServer() as server:
        name = await new_database(server)
        await give_role_settings(server, name)
        pool = pgbouncer(server, way.mode, "default_pool_size = 40") if way.mode else None
        with pool or nullcontext(server.port) as port:
            layout = plan(Path(folder))
            write_material(layout)
            lift_limits(layout)
            drill = Drill(layout)
            url = f"postgresql://{USER}@{HOST}:{port}/{name}{way.options}"
            drill.configure(url, server.password_file)
            async with Processes(Path(folder)) as processes, aiohttp.ClientSession() as http:
                await drill.start(processes)
                async with drill.pollers() as pollers:
                    for end, count in ((by_client, _ROUNDS), (by_command, _COMMANDS)):
                        rounds = [await drill.end(http, pollers, end) for _ in range(count)]
                        ended = f"{end.__name__.replace('_', ' ')}, {way.name}"
                        figures += _figures(ended, [one for round_ in rounds for one in round_])
    return figures


@dataclass
class Drill:
    layout: Layout
    second_internal: int = 0
    second_ops: int = 0
    sidecars: list[tuple[int, int]] = field(default_factory=list)  # its port and its ops port
    known: set[str] = field(default_factory=set)  # handles of what has ended already

    def configure(self, url: str, password_file: Path) -> None:
        """Two replicas; the second has other ports."""
        free, config = _free_ports(), self.layout.config
        members = yaml.safe_load(config.read_text())
        members["storage"] = {"url": url, "passwordFile": str(password_file), "replicas": 2}
        config.write_text(yaml.safe_dump(members))
        for listener in members["listeners"].values():
            listener["port"] = next(free)
        self.second_internal = members["listeners"]["internal"]["port"]
        self.second_ops = members["listeners"]["ops"]["port"]
        self._second_config.write_text(yaml.safe_dump(members))
        self.sidecars = [(next(free), next(free)) for _ in range(2)]

    @property
    def _second_config(self) -> Path:
        return self.layout.config.with_name("second.yaml")

    async def start(self, processes: Processes) -> None:
        await start_upstream(self.layout, processes, token_seconds=3600)
        for name, config in (("first", self.layout.config), ("second", self._second_config)):
            await processes.start(name, "authserver", "--config", str(config))
        await processes.ready("first", f"{self.layout.ops}/readyz")
        await processes.ready("second", f"http://{HOST}:{self.second_ops}/readyz")
        for number, (port, ops) in enumerate(self.sidecars):
            environment = sidecar_environment(self.layout, self.layout.servers[0]) | {
                "TOKENWARD_AUTHSERVER_URL": f"https://{HOST}:{self.second_internal}",
                "TOKENWARD_PORT": str(port),
                "TOKENWARD_OPS_PORT": str(ops),
            }
            await processes.start(f"sidecar-{number}", "sidecar", environment=environment)
            await processes.ready(f"sidecar-{number}", f"http://{HOST}:{ops}/readyz")

    @asynccontextmanager
    async def pollers(self) -> AsyncIterator[asyncio.StreamReader]:
        """The pollers' process; what it prints once each of them follows the second replica."""
        server = self.layout.servers[0]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.revocation_pollers",
            str(self.second_internal),
            str(self.layout.server_ca),
            str(server.credential),
            str(_POLLERS),
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for _ in range(_POLLERS):
                    assert json.loads(await process.stdout.readline()) == "ready"
            yield process.stdout
        finally:
            process.kill()
            await process.wait()

    async def end(
        self, http: aiohttp.ClientSession, pollers: asyncio.StreamReader, end: "End"
    ) -> list[float]:
        """One ending; the seconds until each of the 200 had dropped what it held."""
        jwt = await sign_in(self.layout, self.layout.servers[0])
        before = [await self._hold(http, at, jwt) for at in range(len(self.sidecars))]
        drops = [asyncio.create_task(self._dropped(http, *known)) for known in enumerate(before)]
        heard = asyncio.create_task(self._heard(pollers))
        await end(http, self.layout, jwt)
        done = time.monotonic()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            moments = [*await heard, *await asyncio.gather(*drops)]
        return [max(0.0, moment - done) for moment in moments]  # a command ends after its ending

    async def _hold(self, http: aiohttp.ClientSession, at: int, jwt: str) -> float:
        """Let a sidecar fetch the user's token; how many it has dropped so far."""
        headers = {"Authorization": f"Bearer {jwt}", "X-Tokenward": "1"}
        url = f"http://{HOST}:{self.sidecars[at][0]}/v1/token"
        async with http.post(url, json={}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        return await self._drops(http, at)

    async def _dropped(self, http: aiohttp.ClientSession, at: int, before: float) -> float:
        while await self._drops(http, at) == before:
            await asyncio.sleep(_SCRAPE_SECONDS)
        return time.monotonic()

    async def _heard(self, pollers: asyncio.StreamReader) -> list[float]:
        """When each poller heard of what no earlier round ended, on the monotonic clock."""
        moments: defaultdict[str, list[float]] = defaultdict(list)
        while max(map(len, moments.values()), default=0) < _POLLERS:
            moment, handles = json.loads(await pollers.readline())
            for handle in set(handles) - self.known:
                moments[handle].append(moment)
        self.known |= moments.keys()
        return next(found for found in moments.values() if len(found) == _POLLERS)

    async def _drops(self, http: aiohttp.ClientSession, at: int) -> float:
        async with http.get(f"http://{HOST}:{self.sidecars[at][1]}/metrics") as answer:
            text = await answer.text()
        name = "tokenward_sidecar_revocation_drops_total "
        return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


End = Callable[[aiohttp.ClientSession, Layout, str], Awaitable[None]]


async def by_client(http: aiohttp.ClientSession, layout: Layout, jwt: str) -> None:
    form = {"token": jwt, "client_id": _claims(jwt)["client_id"]}
    async with http.post(f"{layout.issuer}/oauth/revoke", data=form) as answer:
        assert answer.status == 200


async def by_command(_: aiohttp.ClientSession, layout: Layout, jwt: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tokenward", "sessions", "end",
        "--client", _claims(jwt)["client_id"], "--reason", "measured",
        "--config", str(layout.config),
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )  # fmt: skip
    out, _none = await process.communicate()
    assert b"1 session(s) ended" in out, out


def _claims(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert isinstance(claims, dict)
    return claims


def _figures(ended: str, seconds: list[float]) -> list[Figure]:
    name = f"ended {ended}, to the drop at {_POLLERS + 2} pollers"
    cuts = statistics.quantiles(seconds, n=100)
    figures = {"p50 ms": cuts[49], "p99 ms": cuts[98], "longest, ms": max(seconds)}
    return [Figure(name, unit, value * 1000, None) for unit, value in figures.items()]


async def _measured() -> list[Figure]:
    cancel_on_signals()
    return await measure()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(table(runner.run(_measured())))


if __name__ == "__main__":
    main()
