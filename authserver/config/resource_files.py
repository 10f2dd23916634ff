"""`resourcesDir`: a folder of further `resources` files, which the controller writes.

Each file stands for itself. One that is missing, torn or wrong keeps what was last read of it, so
that a fault in one file costs no user of another file a sign-in. A file is in force when every
entry of it is.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from authserver.config.exchange_rules import problems_of_resource
from authserver.config.exchanged_upstreams import ConfiguredUpstream, ExchangedUpstream
from authserver.config.resource_map import ResourceSettings
from authserver.config.workloads import DeniedLeaf
from authserver.oauth.resources import Resource, collision_key
from authserver.values import Value
from chassis.config_types import Model
from chassis.file_watch import FileWatch
from chassis.logs import Log
from chassis.process import ConfigProblem, ConfigurationError
from chassis.yaml_config import problems_of, read_mapping

_log = Log("resource_files")

_MAX_FILES: Final = 64


class ResourceFile(Model):
    """The content of one file."""

    resources: tuple[ResourceSettings, ...] = ()
    denied_certificates: tuple[DeniedLeaf, ...] = ()


class _Read(Value, frozen=True):
    digest: str  # SHA-256 of the file's bytes, in hex
    content: ResourceFile


class ResourceFiles:
    """The files of a folder as they were last read whole; None for a folder means no files."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._read: dict[str, _Read] = {}
        self._in_force: dict[str, str] = {}
        self._watch = FileWatch(self._files)
        self._poll()

    @property
    def in_force(self) -> Mapping[str, str]:
        """The SHA-256 of each file that is in force with every entry, by the file's name."""
        return self._in_force

    def poll(self) -> bool:
        """Whether a file changed and was read."""
        return self._watch.changed() and self._poll()

    @property
    def denied_serials(self) -> frozenset[str]:
        """Serials of leaves whose object is gone, until they end."""
        return frozenset(
            leaf.serial for read in self._read.values() for leaf in read.content.denied_certificates
        )

    def entries(
        self, configured: Iterable[Resource], upstreams: Iterable[ConfiguredUpstream]
    ) -> list[Resource]:
        """The resources to put into force beside those of the configuration file.

        Left out are those that the configuration file or an earlier file has already, and those
        whose upstreams are not configured yet: the two files may arrive one after the other.
        """
        taken = {collision_key(one.url) for one in configured}
        known = {one.name: one for one in upstreams}
        resources: list[Resource] = []
        self._in_force = {}
        for name, read in sorted(self._read.items()):
            usable = [one for one in read.content.resources if _usable(one, taken, known)]
            if len(usable) == len(read.content.resources):
                self._in_force[name] = read.digest
            else:
                _log.warning(
                    "resources_left_out", file=name, count=len(read.content.resources) - len(usable)
                )
            resources += [one.entry() for one in usable]
        return resources

    def _poll(self) -> bool:
        changed, faults = False, []
        for file in self._files():
            try:
                changed |= self._take(file)
            except ConfigurationError as bad:
                faults += [ConfigProblem(f"{file.name}: {f.path}", f.problem) for f in bad.faults]
            except OSError:
                continue  # gone under our eyes; what was read stays
        if not faults:
            self._watch.accept()
        elif self._watch.is_new_fault(tuple(faults)):
            for fault in faults[:10]:
                _log.warning("resources_kept", file=fault.path, problem=fault.problem)
        return changed

    def _take(self, file: Path) -> bool:
        before, digest = self._read.get(file.name), _digest(file)
        if before is not None and before.digest == digest:
            return False
        content = _parse(file)
        if _digest(file) != digest:
            raise OSError  # swapped while we read it; the next poll sees it whole
        self._read[file.name] = _Read(digest, content)
        return True

    def _files(self) -> Iterator[Path]:
        """The folder's YAML files; a kubelet's own entries begin with two dots."""
        if self._folder is None:
            return
        files = sorted(self._folder.glob("*.yaml"))
        yield from [one for one in files if not one.name.startswith(".")][:_MAX_FILES]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _parse(file: Path) -> ResourceFile:
    try:
        return ResourceFile.model_validate(read_mapping(file))
    except ValidationError as invalid:
        raise ConfigurationError(list(problems_of(invalid))) from None


def _usable(
    entry: ResourceSettings, taken: set[str], known: Mapping[str, ConfiguredUpstream]
) -> bool:
    key = collision_key(entry.resource)
    if key in taken or not all(one.name in known for one in entry.upstreams):
        return False
    if not known[entry.upstreams[0].name].names_its_user:
        return False
    parents = {
        name: one.exchange.upstream if isinstance(one, ExchangedUpstream) else None
        for name, one in known.items()
    }
    listed = [(one.name, one.connect) for one in entry.upstreams]
    if any(problems_of_resource(listed, parents)):
        return False
    taken.add(key)
    return True
