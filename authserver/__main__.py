"""`python -m authserver [serve|rewrap|forget-key|restored] --config FILE [--check]`."""

import os

# Python's TLS contexts would write every session's keys to this file, and aiohttp makes some
# while it is imported.
os.environ.pop("SSLKEYLOGFILE", None)  # noqa: TID251 - see above

import gc

from authserver import lean_aiohttp
from chassis import lean_prometheus

if __name__ == "__main__":
    gc.disable()  # `process.main` enables it: what is imported until then does not become garbage
    # Nor look for plugins: we have none.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # noqa: TID251 - read while it is imported
    lean_prometheus.load()
    lean_aiohttp.load()

import argparse
import asyncio
import ssl
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import uvloop

from authserver import listener_tls
from authserver.app import Authserver
from authserver.config.loader import load
from authserver.config.settings import Settings
from authserver.config.watcher import ConfigWatcher
from authserver.public.aiohttp_listener import AiohttpListener
from authserver.storage.audit_keys import AuditKeys
from authserver.storage.contract import Database, StorageOpenError, StorageUnavailable
from authserver.storage.engines.open import open_database
from authserver.storage.key_rotation import KeyRotation
from authserver.upstream.http_client import UpstreamHttp
from chassis import clock, logs, process
from chassis.file_watch import poll_forever
from chassis.http1.listener import Listener
from chassis.http1_probes import ops_server

_log = logs.Log("main")

_DRAIN_SECONDS: Final = 20.0
_DESTRUCTIVE: Final = ("forget-key", "restored")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m authserver")
    parser.add_argument(
        "command",
        nargs="?",
        default="serve",
        choices=("serve", "rewrap", "forget-key", "restored"),
        help="rewrap: seal everything anew under the first encryption key; forget-key: delete what"
        " a lost one sealed; restored: run once after a restore, before the authserver",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", help="how --check says its faults"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="--check writes its faults as JSON there too"
    )
    parser.add_argument("--key-id", metavar="ID", help="the key that forget-key is about")
    parser.add_argument(
        "--reason", metavar="TEXT", help="for the audit trail; forget-key and restored need it"
    )
    arguments = parser.parse_args()
    if (arguments.key_id is None) == (arguments.command == "forget-key"):
        parser.error("--key-id goes with forget-key, and only there")
    if bool((arguments.reason or "").strip()) != (arguments.command in _DESTRUCTIVE):
        parser.error("--reason goes with forget-key and restored, and only there")
    logs.configure("authserver")
    if arguments.check:
        sys.exit(_check(arguments.config, arguments.output, arguments.report))
    if arguments.command != "serve":
        process.main(lambda: _maintenance(arguments))
    process.main(lambda: _serve(arguments.config), loop=uvloop.new_event_loop)


def _check(config: Path, output: str, report: Path | None) -> int:
    """Print every fault on a line of its own, or as JSON, or what follows; the exit code."""
    from authserver.admin import consequences  # a server has no use for it
    from authserver.config import check_report
    from authserver.config.notes import notes_of

    settings, faults = None, list[process.ConfigProblem]()
    try:
        settings = _load(config)
    except process.ConfigurationError as bad:
        faults = list(bad.faults)
        if output == "text":
            for fault in faults:
                print(fault, file=sys.stderr)  # noqa: T201 - the command's output
    if report is not None:
        report.write_text(check_report.report(faults), "ascii")
    if output == "json":
        _say(check_report.report(faults, max_bytes=sys.maxsize))
    if settings is None:
        return process.EXIT_BAD_CONFIGURATION
    if output == "json":
        return 0
    for note in notes_of(settings):
        _say(f"note: {note}")
    _say(f"{config}: no faults")
    asyncio.run(consequences.tell(settings, clock.wall, _say))
    return 0


def _load(config: Path) -> Settings:
    """The settings, whose certificates and CAs are known to work. Raises ConfigurationError."""
    settings = load(config)
    if problems := listener_tls.faults(settings):
        raise process.ConfigurationError(problems)
    return settings


async def _serve(config: Path) -> None:
    settings = _load(config)  # all of it before a database file is made
    logs.configure("authserver", settings.log_level)
    async with AsyncExitStack() as stack:
        database = await _storage(settings, stack)
        try:
            await KeyRotation(database).check(settings.keyring())
        except StorageOpenError as unusable:
            raise process.StartFailed(str(unusable)) from None
        http = await stack.enter_async_context(UpstreamHttp())
        await serve(config, settings, database, http, clock.wall)


async def serve(
    config: Path, settings: Settings, database: Database, http: UpstreamHttp, now: clock.Clock
) -> None:
    """Run an authserver on what was opened for it, until a signal; `config` is watched."""
    async with AsyncExitStack() as stack:
        audit_key = await AuditKeys(database, settings.keyring()).key()
        server = Authserver(settings, database, http, now, audit_key=audit_key)
        await server.start()
        contexts = await listener_tls.followed(
            stack,
            settings,
            server.credential_reloaded,
            server.expired_cas,
            server.certificate_in_use,
        )
        stack.push_async_callback(server.drain)
        await stack.enter_async_context(process.background(server.housekeeping.run()))
        await stack.enter_async_context(process.background(server.revocation_feed.run()))
        reloading = ConfigWatcher(config, settings, server.reload, server.reloaded)
        await stack.enter_async_context(process.background(reloading.watch()))
        resources = poll_forever(server.poll_resources)
        await stack.enter_async_context(process.background(resources))
        await _listen(settings, server, contexts)


async def _maintenance(arguments: argparse.Namespace) -> None:
    """Run an operator's command; leaves with its exit code."""
    from authserver.admin import keys  # a server has no use for them
    from authserver.admin.authority import Authority, os_user

    settings, key_id = load(arguments.config), arguments.key_id
    about = "all" if key_id is None else f"key={key_id}"
    authority = Authority(arguments.command, arguments.reason or "", os_user(), about)
    async with AsyncExitStack() as stack:
        database = await _storage(settings, stack)
        try:
            match arguments.command:
                case "rewrap":
                    code = await keys.rewrap(settings, database, _say)
                case "forget-key":
                    code = await keys.forget_key(
                        settings, database, key_id, clock.wall, _say, authority
                    )
                case _:
                    code = await keys.restored(database, clock.wall, _say, authority)
        except StorageUnavailable as down:
            raise process.StartFailed(f"storage: {down}; run the command again to go on") from None
    sys.exit(code)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's output


async def _storage(settings: Settings, stack: AsyncExitStack) -> Database:
    """The opened database, closed with `stack`."""
    try:
        database = await open_database(settings.storage.url, settings.storage.password)
    except StorageOpenError as unusable:
        raise process.StartFailed(str(unusable)) from None
    stack.push_async_callback(database.close)
    return database


async def _listen(
    settings: Settings, server: Authserver, contexts: Mapping[str, ssl.SSLContext]
) -> None:
    public, internal, ops = (
        settings.listeners.public,
        settings.listeners.internal,
        settings.listeners.ops,
    )
    probes = ops_server(
        server.readiness,
        server.registry,
        {"/resource-map": lambda: {"files": dict(server.resource_files)}},
    )
    await process.serve(
        [
            AiohttpListener(
                "public",
                public.host,
                public.port,
                server.public(),
                server.connection_limits(),
                contexts.get(listener_tls.PUBLIC),
            ),
            Listener(
                "internal",
                internal.host,
                internal.port,
                server.internal().server(),
                contexts[listener_tls.INTERNAL],
            ),
        ],
        ops=Listener("ops", ops.host, ops.port, probes),
        readiness=server.readiness,
        drain_seconds=_DRAIN_SECONDS,
    )


if __name__ == "__main__":
    main()
