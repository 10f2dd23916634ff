"""Follows the configuration file and the files it names; a bad change keeps the last good one."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from authserver.config.loader import load
from authserver.config.settings import RELOADABLE, Settings
from authserver.storage.contract import StorageUnavailable
from chassis.file_watch import FileWatch, poll_forever
from chassis.logs import Log
from chassis.process import ConfigProblem, ConfigurationError

_log = Log("config_watcher")


# What became of a change. One that is postponed has no fault: storage is down.
ReloadResult = Literal["taken", "refused", "postponed"]


class ConfigWatcher:
    """`apply` puts new settings into force whole, or raises ConfigurationError and changes nothing.

    So it does with StorageUnavailable, where only time is needed. `on_reload` hears what became of
    each change.
    """

    def __init__(
        self,
        config: Path,
        settings: Settings,
        apply: Callable[[Settings], Awaitable[None]],
        on_reload: Callable[[ReloadResult], None],
    ) -> None:
        self._config, self._settings = config, settings
        self._apply, self._on_reload = apply, on_reload
        self._files = FileWatch(lambda: (self._config, *_files(self._settings)))

    async def poll(self) -> bool:
        """Whether new settings took over. What was not taken is tried again with every poll."""
        if not self._files.changed():
            return False
        try:
            settings = load(self._config)
            await self._apply(settings)
        except StorageUnavailable:
            if self._files.is_new_fault("storage_down"):
                _log.warning("reload_postponed", reason="storage_down")
                self._on_reload("postponed")
            return False
        except Exception as failure:  # noqa: BLE001 - whatever it is, somebody has to hear of it
            faults = _faults(failure)
            if self._files.is_new_fault(faults):
                self._refuse(faults)
                if not isinstance(failure, ConfigurationError | OSError):
                    _log.failure("reload_failed", failure)
            return False
        self._report(settings)
        self._settings = settings
        self._files.accept()
        self._on_reload("taken")
        return True

    async def watch(self) -> None:
        """Poll until cancelled."""
        await poll_forever(self.poll)

    def _refuse(self, faults: Sequence[ConfigProblem]) -> None:
        for fault in faults:
            _log.warning("configuration_kept", path=fault.path, problem=fault.problem)
        self._on_reload("refused")

    def _report(self, settings: Settings) -> None:
        changed = [
            name
            for name in type(settings).model_fields
            if getattr(settings, name) != getattr(self._settings, name)
        ]
        waiting = [name for name in changed if name not in RELOADABLE]
        files = [str(file) for file in self._files.changes() if file != self._config]
        _log.info("configuration_reloaded", changed=changed, files=files)
        if waiting:
            _log.warning("restart_needed", members=waiting)


def _faults(failure: Exception) -> tuple[ConfigProblem, ...]:
    """What to tell of a failed reload; the text of an unforeseen error could hold a secret."""
    if isinstance(failure, ConfigurationError):
        return tuple(failure.faults)
    if isinstance(failure, OSError):
        # A file that changed between two looks; the next poll may see it whole.
        name = failure.filename
        return (ConfigProblem(str(name or "the file"), failure.strerror or "cannot be read"),)
    problem = f"could not be put into force: {type(failure).__name__}"
    return (ConfigProblem("the file", problem),)


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
