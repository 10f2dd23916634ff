"""`python -m demo`: walk the main journey on loopback; exit 0 only if everything held.

With `--serve` everything stays up until Ctrl-C, for a browser or any other MCP client.
"""

import asyncio
import io
import logging
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp

from demo import stack
from demo.findings import Findings
from demo.gauges import Gauges
from demo.journey import Journey
from demo.layout import Layout, plan
from demo.material import write_material
from demo.narration import Narrator
from demo.processes import Processes, ProcessFailed, cancel_on_signals
from demo.unmodified import UnmodifiedServer
from demo.upstream import USERS
from demo.web_client import serve_page

EXIT_BROKEN: Final = 1
EXIT_INTERRUPTED: Final = 130


def main() -> None:
    parser = ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="stay up and print URLs to open")
    serve = parser.parse_args().serve
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without UTF-8 is no failure
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # we report what fails, once
    sys.exit(asyncio.run(_run(serve=serve)))


async def _run(*, serve: bool) -> int:
    begun, findings, interrupted = time.monotonic(), Findings(), cancel_on_signals()
    with tempfile.TemporaryDirectory(prefix="tokenward-demo-") as folder:
        layout = plan(Path(folder), behind_gateways=("plain",))
        processes = Processes(Path(folder))
        with suppress(asyncio.CancelledError):
            async with processes:
                try:
                    await _set_up(layout, processes)
                    await (
                        _serve(layout, processes) if serve else _walk(layout, processes, findings)
                    )
                except Exception as error:  # noqa: BLE001 - the edge: report it plainly
                    findings.broken.extend(_plain(error))
        findings.broken[:0] = processes.problems
        if findings.broken:
            print("", *processes.last_words(), sep="\n")
    if findings.broken:
        return _report(findings)
    if serve or interrupted.is_set():
        print("\nEverything has been stopped.")
        return 0 if serve else EXIT_INTERRUPTED
    print(f"\nEverything held, in {time.monotonic() - begun:.1f} s, and nothing is left running.")
    return 0


async def _set_up(layout: Layout, processes: Processes) -> None:
    begun = time.monotonic()
    print("Writing keys, certificates and the configuration, and starting the processes")
    write_material(layout)
    await stack.start(layout, processes)
    print(f"     {len(processes.pids)} processes are ready after {time.monotonic() - begun:.1f} s")


async def _walk(layout: Layout, processes: Processes, findings: Findings) -> None:
    async with aiohttp.ClientSession() as http:
        gauges, narrator = Gauges(layout, http), Narrator(layout)
        await Journey(layout, gauges, narrator, findings).walk()
        await UnmodifiedServer(layout, gauges, processes, narrator, findings).walk()


async def _serve(layout: Layout, processes: Processes) -> None:
    async with serve_page(layout) as page:
        users = ", ".join(f"{user.login} / {user.password}" for user in USERS.values())
        print(f"\nOpen in a browser   {page}")
        print(f"     users          {users}")
        for server in layout.servers:
            print(f"     MCP server     {server.resource} (enter it into any MCP client)")
        print(f"     authserver     {layout.issuer}/.well-known/oauth-authorization-server")
        print(f"     metrics        {layout.ops}/metrics")
        for server in layout.servers:
            print(f"                    {server.ops}/metrics (sidecar of {server.name})")
        print(f"     upstream       {layout.upstream}/control/stats")
        print(f"     logs           {layout.folder}")
        print("Ctrl-C ends everything.")
        await processes.first_failure()


def _plain(error: BaseException) -> Iterator[str]:
    """The exceptions inside, one line each."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _plain(inner)
    else:
        yield str(error) if isinstance(error, ProcessFailed) else f"{type(error).__name__}: {error}"


def _report(findings: Findings) -> int:
    print("\nDid not hold:")
    for statement in dict.fromkeys(findings.broken):
        print(f"  - {statement}")
    return EXIT_BROKEN


if __name__ == "__main__":
    main()
