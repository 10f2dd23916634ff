"""Start a process's listeners together, serve until a signal, drain, and exit with a clear word.

Exit codes: 0 after a clean shutdown, 1 when the process could not start or failed, 2 for a bad
configuration. A failed start binds nothing and says why in one line.
"""

import asyncio
import contextlib
import ctypes
import gc
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Final, NamedTuple, NoReturn

from chassis.logs import Log
from chassis.probes import Readiness
from chassis.sockets import Bindable, BindFailed, Bound

_log = Log("process")

EXIT_FAILED: Final = 1
EXIT_BAD_CONFIGURATION: Final = 2

_PR_SET_DUMPABLE: Final = 4


class StartFailed(Exception):
    """The process cannot start; the text is one line an operator can act on, without secrets."""


class ConfigProblem(NamedTuple):
    """One fault of a configuration: where it stands and what is wrong there."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class ConfigurationError(Exception):
    """Every fault of a configuration at once."""

    def __init__(self, faults: Sequence[ConfigProblem]) -> None:
        super().__init__(f"{len(faults)} fault(s) in the configuration")
        self.faults = tuple(faults)


def main(
    process: Callable[[], Awaitable[None]],
    *,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> NoReturn:
    """Run `process` to its end and leave with the exit code its end calls for.

    What was imported before is left out of garbage collections: it lives as long as the process.
    """
    gc.freeze()
    gc.enable()
    forbid_dumps()
    use_all_open_files()
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(_guarded(process))
    except ConfigurationError as bad:
        for fault in bad.faults:
            _log.error("bad_configuration", path=fault.path, problem=fault.problem)
        sys.exit(EXIT_BAD_CONFIGURATION)
    except StartFailed as failed:
        _log.error("start_failed", problem=str(failed))
        sys.exit(EXIT_FAILED)
    sys.exit(0)


async def _guarded(process: Callable[[], Awaitable[None]]) -> None:
    asyncio.get_running_loop().set_exception_handler(_log_loop_failure)
    await process()


def _log_loop_failure(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    # asyncio's own text repeats the representation of tasks and exceptions; only types are kept.
    error = context.get("exception")
    if isinstance(error, BaseException):
        _log.failure("background_failure", error)


def forbid_dumps() -> None:
    """No core file, and no other process of this user may read our memory (prctl(2))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):  # not Linux: nothing to forbid
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def use_all_open_files() -> None:
    """Raise the soft limit of open files, often 1024 for the sake of select(2), to the hard one.

    Each connection is one of them.
    """
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a system that has its own bound below that
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))


@contextlib.asynccontextmanager
async def background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `work` beside the block and cancel it at the block's end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def serve(
    listeners: Sequence[Bindable],
    *,
    ops: Bindable,
    readiness: Readiness,
    drain_seconds: float,
    linger_seconds: float = 0.0,
) -> None:
    """Bind every listener or none, serve until SIGTERM or SIGINT, then drain.

    For `linger_seconds` after the signal everything is served as before, only not ready: time for
    handlers to end kept-alive connections and for callers to learn of it. Draining stops
    accepting, lets requests in flight finish for up to `drain_seconds`, then cancels them; the
    ops listener answers until the end. The condition `listening` of `readiness` holds until the
    signal. A second signal ends the process at once. Raises StartFailed.
    """
    stop = _stop_on_signals()
    async with contextlib.AsyncExitStack() as ops_bound, contextlib.AsyncExitStack() as bound:
        ops_bound.push_async_callback((await _bound(ops, drain_seconds)).cleanup)
        runners = []
        for listener in listeners:
            runners.append(await _bound(listener, drain_seconds))
            bound.push_async_callback(runners[-1].cleanup)
        readiness.satisfy("listening")
        await stop.wait()
        readiness.clear("listening")
        await asyncio.sleep(linger_seconds)
        _log.info("draining", seconds=drain_seconds)
        await asyncio.gather(*(runner.cleanup() for runner in runners))
    _log.info("stopped")


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            sys.exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


async def _bound(listener: Bindable, drain_seconds: float) -> Bound:
    try:
        return await listener.bind(drain_seconds)
    except BindFailed as refused:
        raise StartFailed(str(refused)) from refused
