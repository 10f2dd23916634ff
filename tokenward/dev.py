# ruff: noqa: TID251 - the author's server runs in the author's environment
"""`tokenward dev -- COMMAND`: an author's own MCP server with everything around it, on loopback.

An upstream, an authserver and a sidecar are started beside the command, each as a process of its
own. When the command ends, or at Ctrl-C, all of them end. Nothing outlives the run but its output.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from authserver.config.loader import load
from chassis.process import ConfigurationError
from demo.layout import UPSTREAM, Layout, Server, plan
from demo.material import write_material
from demo.processes import Processes, ProcessFailed, cancel_on_signals
from demo.stack import sidecar_environment, start_upstream
from demo.upstream import USERS
from tokenward import dev_upstream
from tokenward.commands import EXIT_FAILED, complain

_NAME: Final = "my-server"
_TOKEN_SECONDS: Final = 3600
_STOP_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05


def dev(parsed: argparse.Namespace) -> int:
    """The exit code of the command; 0 after Ctrl-C."""
    return asyncio.run(_dev(parsed))


async def _dev(parsed: argparse.Namespace) -> int:
    interrupted = cancel_on_signals()
    code = EXIT_FAILED
    with tempfile.TemporaryDirectory(prefix="tokenward-dev-") as folder:
        layout = _layout(Path(folder), parsed)
        if faults := _faults(layout, parsed):
            complain(*faults)
            return EXIT_FAILED
        processes = Processes(Path(folder))
        with suppress(asyncio.CancelledError):
            async with processes:
                try:
                    await _start(layout, parsed, processes)
                    code = await _run(layout, parsed, processes)
                except ProcessFailed as failed:
                    print(f"error: {failed}", *processes.last_words(), sep="\n", file=sys.stderr)
    print("everything has been stopped")
    return 0 if interrupted.is_set() else code


def _layout(folder: Path, parsed: argparse.Namespace) -> Layout:
    """Where everything is, with its files; the author's server keeps the port that it has."""
    layout = plan(folder, (_NAME,))
    [server] = layout.servers
    public = parsed.public_port or layout.public_port
    layout = replace(layout, public_port=public, servers=(replace(server, mcp_port=parsed.port),))
    write_material(layout)
    if parsed.upstream is not None:
        dev_upstream.use(layout, parsed)
    return layout


async def _start(layout: Layout, parsed: argparse.Namespace, processes: Processes) -> None:
    """Raises ProcessFailed where something does not become ready."""
    if parsed.upstream is None:
        await start_upstream(layout, processes, token_seconds=_TOKEN_SECONDS)
        await processes.ready("upstream", f"{layout.upstream}/.well-known/openid-configuration")
    [server] = layout.servers
    await processes.start("authserver", "authserver", "--config", str(layout.config))
    await processes.ready("authserver", f"{layout.ops}/readyz")
    await processes.start("sidecar", "sidecar", environment=sidecar_environment(layout, server))
    await processes.ready("sidecar", f"{server.ops}/readyz")
    for line in _greeting(layout, server, parsed):
        print(line, flush=True)


def _faults(layout: Layout, parsed: argparse.Namespace) -> list[str]:
    """Every fault that can be seen before anything runs."""
    faults = list(dev_upstream.start_faults(parsed))
    try:
        load(layout.config)
    except ConfigurationError as bad:
        faults += map(str, bad.faults)
        if parsed.upstream is not None:
            faults.append(f"upstreams[0] is {parsed.upstream}; --set gives it further members")
    return faults


def _greeting(layout: Layout, server: Server, parsed: argparse.Namespace) -> list[str]:
    name = parsed.upstream or UPSTREAM
    lines = [
        f"MCP URL for any client:    {server.resource}",
        f"sidecar (TOKENWARD_URL):   {server.sidecar}",
        f"authserver (issuer):       {layout.issuer}",
        f"upstream:                  {name}",
    ]
    if parsed.upstream is None:
        people = ", ".join(f"{user.login} / {user.password}" for user in USERS.values())
        lines.append(f"sign in there as:          {people}")
        lines.append(f"its API, for the token:    {layout.upstream}/api/user")
    else:
        uri = f"{layout.issuer}/oauth/callback/{name}"
        lines.append(f"redirect URI to register:  {uri}")
    return [*lines, "Ctrl-C ends everything."]


async def _run(layout: Layout, parsed: argparse.Namespace, processes: Processes) -> int:
    """Run the author's command until it or one of ours ends. Raises ProcessFailed."""
    async with _command(parsed.server_command, _variables(layout, parsed)) as command:
        ended = asyncio.ensure_future(command.wait())
        failed = asyncio.ensure_future(processes.first_failure())
        try:
            await asyncio.wait((ended, failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed.cancel()
        if not ended.done():
            await failed
        print(f"the command ended with code {ended.result()}")
        return ended.result()


def _variables(layout: Layout, parsed: argparse.Namespace) -> dict[str, str]:
    """What the author's server gets, beside what this process has."""
    [server] = layout.servers
    variables = {
        "TOKENWARD_URL": server.sidecar,
        "TOKENWARD_RESOURCE": server.resource,
        "TOKENWARD_ISSUER": layout.issuer,
        "PORT": str(server.mcp_port),
    }
    if parsed.upstream is None:
        variables["TOKENWARD_DEV_API_URL"] = f"{layout.upstream}/api"
    return variables


@asynccontextmanager
async def _command(
    command: list[str], variables: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The author's server, until the end of the block."""
    environment = os.environ | variables
    # A debugger needs the terminal. Without one, what the command starts can end with it.
    grouped = sys.stdin is None or not sys.stdin.isatty()
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, process_group=0 if grouped else None
        )
    except OSError as error:
        raise ProcessFailed(f"{command[0]}: {error.strerror or 'cannot be started'}") from None
    try:
        yield process
    finally:
        await _end(process, grouped)


async def _end(process: asyncio.subprocess.Process, grouped: bool) -> None:
    """End a command, and with its process group whatever it started."""

    def send(number: int) -> bool:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number) if grouped else process.send_signal(number)
            return True
        return False

    send(signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
            while grouped and send(0):  # noqa: ASYNC110 - no event tells of others' children
                await asyncio.sleep(_LOOK_SECONDS)
    send(signal.SIGKILL)
    await process.wait()
