"""`python -m tests.bench [NAME …]`: run the measurements and print one table."""

import argparse
import asyncio
import os
import platform
from collections.abc import Callable, Coroutine

import uvloop

from demo.processes import cancel_on_signals
from tests.bench import (
    against,
    attach,
    denials,
    endings,
    footprint,
    gateway,
    listing,
    many_sidecars,
    memory,
    release,
    replicas,
    revocations,
    storage,
    strangers,
    sweeping,
    tokens,
    tool_calls,
    webhook,
)
from tests.bench.figures import Figure, table
from tests.bench.world import pin

MEASUREMENTS: dict[str, Callable[[], Coroutine[None, None, list[Figure]]]] = {
    "footprint": footprint.measure,
    "replicas": replicas.measure,  # before anything is pinned
    "revocations": revocations.measure,
    "endings": endings.measure,
    "listing": listing.measure,
    "sweeping": sweeping.measure,
    "release": release.measure,
    "tokens": tokens.measure,
    "crowd": many_sidecars.measure,
    "denials": denials.measure,
    "attach": attach.measure,
    "tools": tool_calls.measure,
    "memory": memory.measure,
    "strangers": strangers.measure,
}

_UNPINNED = ("footprint", "replicas", "revocations", "endings", "listing")
_NAMES = (*MEASUREMENTS, "storage", "webhook", "gateway")
_AGAINST = (*_NAMES, against.REQUESTS)


async def _measured(name: str) -> list[Figure]:
    cancel_on_signals()  # else the measured processes would outlive us
    return await MEASUREMENTS[name]()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_AGAINST))
    parser.add_argument("--against", metavar="COMMIT", help="compare with that build, in turn")
    arguments = parser.parse_args()
    wanted = arguments.names or list(_NAMES)
    if unknown := set(wanted) - set(_AGAINST if arguments.against else _NAMES):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    if arguments.against:
        print(against.compare(arguments.against, arguments.names))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}\n")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures: list[Figure] = []
        for name in (name for name in MEASUREMENTS if name in wanted):
            if name not in _UNPINNED:
                pin([0], core=1)
            figures += runner.run(_measured(name))
    if figures:
        print(table(figures))
    if "storage" in wanted:
        storage.main()
    if "webhook" in wanted:
        print("\nwebhook", *webhook.main(), sep="\n")
    if "gateway" in wanted:
        print("\ngateway")
        gateway.main([])


if __name__ == "__main__":
    main()
