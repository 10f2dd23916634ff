"""The configuration in force: read again when its files change, the last good one kept."""

from collections.abc import Callable
from pathlib import Path

from chassis.file_watch import FileWatch, poll_forever
from chassis.logs import Log
from chassis.process import ConfigProblem, ConfigurationError
from webhook.settings import Settings, load

_log = Log("config_watcher")


class Configuration:
    """The settings of `file`, as they last were without a fault. Raises ConfigurationError.

    `fault` returns what else is wrong with settings that are well-formed, or None.
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
        self._files = FileWatch(lambda: (self._file, self.settings.authserver.ca_file.file))

    def _load(self) -> Settings:
        settings = load(self._file)
        if (problem := self._fault(settings)) is not None:
            raise ConfigurationError([ConfigProblem("the file", problem)])
        return settings

    def current(self) -> Settings:
        return self.settings

    def poll(self) -> bool:
        """Whether a changed configuration took over. What is refused is tried again each time."""
        if not self._files.changed():
            return False
        try:
            self.settings = self._load()
        except ConfigurationError as bad:
            if self._files.is_new_fault(bad.faults):
                for fault in bad.faults:
                    _log.warning("configuration_kept", path=fault.path, problem=fault.problem)
                self._on_reload(False)
            return False
        self._files.accept()
        _log.info("configuration_reloaded", hash=self.settings.config_hashes["default"])
        self._on_reload(True)
        return True

    async def watch(self) -> None:
        """Poll until cancelled."""
        await poll_forever(self.poll)
