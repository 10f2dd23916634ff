"""The configuration in force: read again when its files change, the last good one kept.

Kubernetes swaps a mounted folder by moving a symbolic link, so files are compared by where they
really lie.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from chassis.logs import Log
from chassis.process import ConfigProblem, ConfigurationError
from webhook.settings import Settings, load

_log = Log("configuration")

POLL_SECONDS: Final = 2.0


class Configuration:
    """The settings of `file`, as they last were without a fault. Raises ConfigurationError.

    `fault` says what else speaks against settings that are well-formed.
    """

    def __init__(
        self,
        file: Path,
        *,
        fault: Callable[[Settings], str | None] = lambda _: None,
        on_reload: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._file, self._fault, self._on_reload = file, fault, on_reload
        self.settings = self._load()
        self._seen = self._state()

    def _load(self) -> Settings:
        settings = load(self._file)
        if (problem := self._fault(settings)) is not None:
            raise ConfigurationError([ConfigProblem("the file", problem)])
        return settings

    def current(self) -> Settings:
        return self.settings

    def poll(self) -> bool:
        """Whether a changed configuration took over; a faulty one is reported and left alone."""
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        try:
            self.settings = self._load()
        except ConfigurationError as bad:
            for fault in bad.faults:
                _log.warning("configuration_kept", path=fault.path, problem=fault.problem)
            self._on_reload(False)
            return False
        self._seen = self._state()  # it may name another CA file now
        _log.info("configuration_reloaded", hash=self.settings.config_hashes["default"])
        self._on_reload(True)
        return True

    async def watch(self, interval: float = POLL_SECONDS) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(interval)
            self.poll()

    def _state(self) -> tuple[object, ...]:
        return tuple(_states((self._file, self.settings.authserver.ca_file.file)))


def _states(files: Iterable[Path]) -> Iterable[object]:
    for file in files:
        try:
            resolved = os.path.realpath(file)
            found = os.stat(resolved)
        except OSError as error:
            yield error.errno
        else:
            yield (resolved, found.st_ino, found.st_mtime_ns, found.st_size)
