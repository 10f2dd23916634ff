"""A kind's objects in memory, kept up by list and watch.

A store is level-triggered: what was missed is seen by the next list. It survives an expired
resource version, a closed or silent stream, and an API server that is away for minutes; while
there is no stream its objects stay as they were last seen.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from chassis.logs import Log
from controller.api.kinds import Kind
from controller.api.objects import Key, Object, key_of
from controller.backoff import Backoff, Random
from controller.cluster import ApiError

_log = Log("watch")

_BACKOFF: Final = Backoff(first=0.5, longest=30.0)

OnChange = Callable[[Key, Object | None, Object | None], None]
"""Hears of a change: the key, the object before, and the object now; None where there is none."""

Transform = Callable[[dict[str, Any]], Object]


class Source(Protocol):
    """What an informer needs of the API server; `controller.cluster.Cluster` is one."""

    async def list(
        self, kind: Kind, namespace: str = "", **selectors: str
    ) -> tuple[list[dict[str, Any]], str]: ...

    def watch(
        self, kind: Kind, resource_version: str, namespace: str = "", **selectors: str
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]: ...


class Store(Mapping[Key, Object]):
    """The objects by their keys."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}

    def __getitem__(self, key: Key) -> Object:
        return self._objects[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, key: Key, obj: Object | None) -> Object | None:
        """Keep the object, or forget it; what was there before."""
        if obj is None:
            return self._objects.pop(key, None)
        before = self._objects.get(key)
        self._objects[key] = obj
        return before


def without_managed_fields(obj: dict[str, Any]) -> Object:
    """They are half of a small object, and nobody here reads them."""
    obj.get("metadata", {}).pop("managedFields", None)
    return obj


class Informer:
    """Follows one kind, in one namespace or in all."""

    def __init__(
        self,
        source: Source,
        kind: Kind,
        on_change: OnChange,
        *,
        namespace: str = "",
        selectors: Mapping[str, str] | None = None,
        transform: Transform = without_managed_fields,
        on_restart: Callable[[], None] = lambda: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Random,
        patient: bool = False,
    ) -> None:
        """`patient`: that it is forbidden or unknown is expected, and is said by somebody else."""
        self._patient = patient
        self._source, self._kind, self._on_change = source, kind, on_change
        self._namespace, self._selectors = namespace, dict(selectors or {})
        self._transform, self._on_restart = transform, on_restart
        # Objects of a list do not say their type.
        self._type = {"apiVersion": kind.api_version, "kind": kind.kind}
        self._pause, self._random = pause, random
        self.store = Store()
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Follow the kind until cancelled."""
        failures = 0
        while True:
            try:
                version = await self._relist()
                failures = 0
                await self._follow(version)
            except ApiError as error:
                failures += 1
                if not (error.gone or (self._patient and (error.forbidden or error.not_found))):
                    _log.warning(
                        "watch_failed",
                        kind=self._kind.kind,
                        status=error.status,
                        reason=error.reason,
                    )
            self._on_restart()
            await self._pause(_BACKOFF.seconds(max(failures, 1), self._random))

    async def _relist(self) -> str:
        obj, version = await self._source.list(self._kind, self._namespace, **self._selectors)
        present = set()
        for one in obj:
            present.add(key := key_of(one))
            self._changed(key, one)
        for key in [key for key in self.store if key not in present]:
            self._changed(key, None)
        self.synced.set()
        return version

    async def _follow(self, version: str) -> None:
        """Watch, and watch again from where the last stream ended; raises ApiError."""
        while True:
            async for event, obj in self._source.watch(
                self._kind, version, self._namespace, **self._selectors
            ):
                version = str(obj.get("metadata", {}).get("resourceVersion", version))
                if event != "BOOKMARK":
                    self._changed(key_of(obj), None if event == "DELETED" else obj)

    def _changed(self, key: Key, obj: dict[str, Any] | None) -> None:
        now = self._transform({**self._type, **obj}) if obj is not None else None
        before = self.store.put(key, now)
        if before is None and now is None:
            return
        if before is not None and now is not None and _version(before) == _version(now):
            return
        self._on_change(key, before, now)


def _version(obj: Object) -> object:
    return obj.get("metadata", {}).get("resourceVersion")
