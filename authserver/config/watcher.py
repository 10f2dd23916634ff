"""Follows the configuration file and the files it names; a bad change keeps the last good one."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from authserver.config.loader import load
from authserver.config.settings import RELOADABLE, Settings
from chassis.file_watch import FileWatch, poll_forever
from chassis.logs import Log
from chassis.process import ConfigProblem, ConfigurationError

_log = Log("config_watcher")


class ConfigWatcher:
    """`apply` puts new settings into force whole, or raises ConfigurationError and changes nothing.

    `on_reload` hears whether a change was taken.
    """

    def __init__(
        self,
        config: Path,
        settings: Settings,
        apply: Callable[[Settings], Awaitable[None]],
        on_reload: Callable[[bool], None],
    ) -> None:
        self._config, self._settings = config, settings
        self._apply, self._on_reload = apply, on_reload
        self._files = FileWatch(lambda: (self._config, *_files(self._settings)))

    async def poll(self) -> bool:
        """Whether new settings took over. What is refused is tried again with every poll."""
        if not self._files.changed():
            return False
        try:
            settings = load(self._config)
            await self._apply(settings)
        except ConfigurationError as bad:
            if self._files.is_new_fault(bad.faults):
                self._refuse(bad.faults)
            return False
        except (OSError, ValueError):
            return False  # a file changed under our eyes; the next poll sees it whole
        self._report(settings)
        self._settings = settings
        self._files.accept()
        self._on_reload(True)
        return True

    async def watch(self) -> None:
        """Poll until cancelled."""
        await poll_forever(self.poll)

    def _refuse(self, faults: Sequence[ConfigProblem]) -> None:
        for fault in faults:
            _log.warning("configuration_kept", path=fault.path, problem=fault.problem)
        self._on_reload(False)

    def _report(self, settings: Settings) -> None:
        changed = [
            name
            for name in type(settings).model_fields
            if getattr(settings, name) != getattr(self._settings, name)
        ]
        waiting = [name for name in changed if name not in RELOADABLE]
        _log.info("configuration_reloaded", changed=changed)
        if waiting:
            _log.warning("restart_needed", members=waiting)


def _files(value: object) -> Iterator[Path]:
    """Every file that some settings name."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _files(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _files(item)
