"""`python -m tests.bench.replicas`: exchanges by 1, 2 and 4 authservers on one PostgreSQL."""

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Final

import uvloop
import yaml

from demo.layout import HOST, Layout, _free_ports, plan
from demo.material import write_material
from demo.processes import Processes, cancel_on_signals
from demo.stack import start_upstream
from tests.bench.figures import Figure, table
from tests.bench.load import drive
from tests.bench.release import bare_mtls, exchange_call
from tests.bench.world import World, lift_limits, sign_in
from tests.support.postgresql import PostgresqlServer

_CONNECTIONS: Final = 16
_ROUNDS: Final = 5
_SECONDS: Final = 1.5


async def measure() -> list[Figure]:
    """Requests per second of all together, beside one bare mTLS handler in the same run.

    Nothing is pinned: processes, PostgreSQL and the load share the cores there are.
    """
    with tempfile.TemporaryDirectory() as folder, PostgresqlServer() as server:
        layout = plan(Path(folder))
        write_material(layout)
        lift_limits(layout)
        url = await server.create_database()
        ports = _configure(layout, url, server.password_file, 4)
        async with Processes(Path(folder)) as processes:
            await _start(layout, processes)
            world = World(layout, processes, await sign_in(layout, layout.servers[0]))
            return await _figures(world, ports)


def _configure(layout: Layout, url: str, password_file: Path, replicas: int) -> list[int]:
    """Write a configuration for each replica; their internal ports."""
    members, free, ports = yaml.safe_load(layout.config.read_text()), _free_ports(), []
    members["storage"] = {
        "url": url,
        "passwordFile": str(password_file),
        "replicas": replicas,
    }
    for number in range(replicas):
        if number:
            for listener in members["listeners"].values():
                listener["port"] = next(free)
        ports.append(members["listeners"]["internal"]["port"])
        _config(layout, number).write_text(yaml.safe_dump(members))
    return ports


def _config(layout: Layout, number: int) -> Path:
    return layout.config if number == 0 else layout.config.with_name(f"replica-{number}.yaml")


async def _start(layout: Layout, processes: Processes) -> None:
    await start_upstream(layout, processes, token_seconds=3600)
    for number in range(4):
        config = _config(layout, number)
        await processes.start(f"authserver-{number}", "authserver", "--config", str(config))
        ops = yaml.safe_load(config.read_text())["listeners"]["ops"]["port"]
        await processes.ready(f"authserver-{number}", f"http://{HOST}:{ops}/readyz")


async def _figures(world: World, ports: list[int]) -> list[Figure]:
    tls = world.workload_tls()
    bare = await bare_mtls(world)

    async def together(targets: list[int], seconds: float) -> float:
        loads = await asyncio.gather(
            *(
                drive(
                    HOST,
                    port,
                    exchange_call(port, world.jwt),
                    connections=_CONNECTIONS // len(targets),
                    seconds=seconds,
                    tls=tls,
                )
                for port in targets
            )
        )
        return sum(load.per_second for load in loads)

    figures = []
    for count in (1, 2, 4):
        rounds = []
        for turn in range(_ROUNDS + 1):
            seconds = _SECONDS if turn else 0.5
            rounds.append((await together(ports[:count], seconds), await together([bare], seconds)))
        figures.append(
            Figure(
                f"exchange, PostgreSQL, {count} process{'es' if count > 1 else ''}",
                "requests/s",
                statistics.median(ours for ours, _ in rounds[1:]),
                statistics.median(yardstick for _, yardstick in rounds[1:]),
            )
        )
    return figures


async def _measured() -> list[Figure]:
    cancel_on_signals()
    return await measure()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(table(runner.run(_measured())))


if __name__ == "__main__":
    main()
