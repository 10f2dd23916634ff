"""A control group of its own for one node, so that what its pods leave behind can be removed."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

_MOUNTED: Final = Path("/sys/fs/cgroup")
_CPUSET_FILES: Final = ("cpuset.cpus", "cpuset.mems")


@contextmanager
def control_group(name: str) -> Iterator[str]:
    """Make `/name` in each hierarchy (version 1) or in the only one (version 2). Needs root."""
    with ExitStack() as undo:
        for hierarchy in _hierarchies():
            made = hierarchy / name
            made.mkdir()
            undo.callback(_remove, made)
            _take_processors(hierarchy, made)
        yield f"/{name}"


def _hierarchies() -> list[Path]:
    if (_MOUNTED / "cgroup.controllers").exists():
        return [_MOUNTED]
    found = (path for path in _MOUNTED.iterdir() if path.is_dir() and not path.is_symlink())
    return [path for path in found if (path / "cgroup.procs").exists()]


def _take_processors(hierarchy: Path, made: Path) -> None:
    """A new cpuset of version 1 has no processor, and takes no process until it has one."""
    for name in _CPUSET_FILES:
        if (made / name).exists() and not (made / name).read_text("ascii").strip():
            (made / name).write_text((hierarchy / name).read_text("ascii"), "ascii")


def _remove(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        Path(folder).rmdir()
