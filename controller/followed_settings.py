"""The settings as their file has them: a changed file is taken over by a new controller."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path

from chassis.file_watch import POLL_SECONDS, FileWatch
from chassis.logs import Log
from chassis.process import ConfigurationError
from controller.settings import Settings, load

_log = Log("settings")


class FollowedSettings:
    """`current` are the last settings that were good; a file that is not keeps them in force."""

    def __init__(self, file: Path) -> None:
        """Raises ConfigurationError."""
        self._file = file
        self._watch = FileWatch(lambda: (file,))
        self.current = load(file)

    def poll(self) -> bool:
        """Look at the file; whether there are other settings now."""
        if not self._watch.changed():
            return False
        try:
            settings = load(self._file)
        except ConfigurationError as bad:
            if self._watch.is_new_fault(bad.faults):
                for fault in bad.faults:
                    _log.warning("configuration_kept", path=fault.path, problem=fault.problem)
            return False
        self._watch.accept()
        if settings == self.current:
            return False
        if settings.listeners != self.current.listeners:
            _log.warning("listeners_need_a_restart")
        self.current = settings
        _log.info("configuration_reloaded")
        return True

    async def run(
        self,
        controller: Callable[[Settings], Coroutine[None, None, None]],
        interval: float = POLL_SECONDS,
    ) -> None:
        """Run a controller of the current settings until cancelled, or until it fails.

        With other settings the former one ends first, as at a signal, and gives up its Lease.
        """
        while True:
            work = asyncio.create_task(controller(self.current))
            try:
                while not work.done() and not self.poll():
                    await asyncio.wait({work}, timeout=interval)
            finally:
                work.cancel()
                with suppress(asyncio.CancelledError):
                    await work
