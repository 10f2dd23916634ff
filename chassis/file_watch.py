"""Follows files by polling them: mounted volumes change without an event that every system has."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

from chassis.logs import Log

_log = Log("file_watch")

POLL_SECONDS: Final = 2.0

FileState = tuple[object, ...]


class FileWatch:
    """Whether files differ from those in use, and whether a fault of theirs is a new one.

    `files` names the files at each look; they may be symbolic links. A reload goes: `changed`,
    read the files, then `accept`, or `is_new_fault` where they cannot be used. Files that were
    refused count as changed at the next look, so that they are tried again.
    """

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._files = files
        self._in_use = self._latest = self._states({})
        self._reported: object = None

    def changed(self) -> bool:
        self._latest = self._states({})
        if self._latest == self._in_use:
            self._reported = None
            return False
        return True

    def changes(self) -> list[Path]:
        """Which of the files in use differed at the last look."""
        return [
            file for file, state in self._in_use.items() if self._latest.get(file, state) != state
        ]

    def accept(self) -> None:
        """The files as of the last look are in use now, and so is any file they name."""
        self._in_use = self._states(self._latest)
        self._reported = None

    def is_new_fault(self, fault: object) -> bool:
        """True once for a fault, until the files change to another fault or to a good state."""
        if fault == self._reported:
            return False
        self._reported = fault
        return True

    def _states(self, seen: dict[Path, FileState]) -> dict[Path, FileState]:
        """By file; one that changed after it was `seen` has to count as changed."""
        return {file: seen.get(file) or file_state(file) for file in self._files()}


def file_state(file: Path) -> FileState:
    """What differs after a file was changed, replaced or pointed elsewhere.

    Kubernetes swaps a mounted folder by moving a symbolic link, so the real path counts.
    """
    try:
        resolved = os.path.realpath(file)
        status = os.stat(resolved)
    except OSError as error:
        return (error.errno,)
    return (resolved, status.st_ino, status.st_mtime_ns, status.st_size)


async def poll_forever(
    poll: Callable[[], object | Awaitable[object]], interval: float = POLL_SECONDS
) -> None:
    """Call `poll` every `interval` seconds until cancelled.

    An unexpected exception is logged, and the next poll comes all the same: without it a
    certificate would run out unseen.
    """
    while True:
        await asyncio.sleep(interval)
        try:
            outcome = poll()
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as bug:  # noqa: BLE001 - see the docstring
            _log.failure("poll_failed", bug)
