"""An API server in memory: the part of Kubernetes that the controller uses, without a schema.

It knows resource versions, generations, optimistic locking, server-side apply by one manager, merge
patches, owner references and watches that can be cut or told that their version is too old.
"""

import asyncio
import copy
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from controller.api.kinds import MCP_AUTH_SERVER, MCP_SERVER_AUTH, Kind, kind_of
from controller.api.objects import Key, Object, key_of, metadata, path
from controller.cluster import ApiError

_ATOMIC = ("selector", "matchLabels", "nodeSelector")
_STATUS_IS_APART = (MCP_AUTH_SERVER, MCP_SERVER_AUTH)


class FakeApi:
    """`stamp` gives creation times. `refuse` may raise ApiError for a call: verb, kind, key."""

    def __init__(self, stamp: Callable[[], str]) -> None:
        self._stamp = stamp
        self._versions, self._uids = itertools.count(1), itertools.count(1)
        self.objects: dict[tuple[Kind, Key], dict[str, Any]] = {}
        self._log: list[tuple[int, Kind, str, dict[str, Any]]] = []
        self._changed = asyncio.Event()
        self._oldest = 0
        self._cut = 0
        self.writes: Counter[str] = Counter()
        self.calls: list[tuple[str, str, Key]] = []
        self.refuse: Callable[[str, Kind, Key], None] = lambda verb, kind, key: None

    # What a person does.

    def put(self, wanted: Object) -> dict[str, Any]:
        """As `kubectl apply` of a whole object."""
        kind, key = kind_of(wanted), key_of(wanted)
        before = self.objects.get((kind, key))
        if before is None:
            return self._store(kind, key, copy.deepcopy(dict(wanted)), None)
        made = copy.deepcopy(dict(wanted))
        made["metadata"] = {**before["metadata"], **made["metadata"]}
        if kind in _STATUS_IS_APART and "status" in before:
            made["status"] = before["status"]
        return self._store(kind, key, made, before)

    def set_status(self, kind: Kind, key: Key, status: Mapping[str, Any]) -> None:
        before = self.objects[kind, key]
        self._store(kind, key, {**copy.deepcopy(before), "status": dict(status)}, before)

    def remove(self, kind: Kind, key: Key) -> None:
        """Delete it, and what it owns."""
        gone = self.objects.pop((kind, key), None)
        if gone is None:
            return
        self._record(kind, "DELETED", gone)
        uid = gone["metadata"]["uid"]
        for (other, name), found in list(self.objects.items()):
            owners = found["metadata"].get("ownerReferences") or ()
            if any(one["uid"] == uid for one in owners):
                self.remove(other, name)

    def forget_history(self) -> None:
        """Watches from an earlier version are answered 410 Gone from now on."""
        self._oldest = self._latest()
        self.cut_streams()

    def cut_streams(self) -> None:
        self._cut += 1
        self._wake()

    def found(self, kind: Kind, key: Key) -> dict[str, Any]:
        return self.objects[kind, key]

    def names(self, kind: Kind) -> list[str]:
        return sorted(key.name for found, key in self.objects if found == kind)

    # What the controller calls; the same methods as `controller.cluster.Cluster`.

    async def get(self, kind: Kind, key: Key) -> Object | None:
        await self._call("get", kind, key)
        return copy.deepcopy(self.objects.get((kind, key)))

    async def list(
        self, kind: Kind, namespace: str = "", **selectors: str
    ) -> tuple[list[dict[str, Any]], str]:
        await self._call("list", kind, Key(namespace, ""))
        chosen = [
            copy.deepcopy(one)
            for (found, _), one in self.objects.items()
            if found == kind and _selected(one, namespace, selectors)
        ]
        return chosen, str(self._latest())

    async def watch(
        self, kind: Kind, resource_version: str, namespace: str = "", **selectors: str
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        await self._call("watch", kind, Key(namespace, ""))
        at, cut = int(resource_version), self._cut
        if at < self._oldest:
            raise ApiError(410, "Expired", "too old resource version")
        while True:
            for version, found, event, one in self._log:
                if version > at:
                    at = version
                    if found == kind and _selected(one, namespace, selectors):
                        yield event, copy.deepcopy(one)
            if self._cut != cut:
                return
            if self._latest() <= at:
                await self._changed.wait()

    async def create(self, wanted: Object) -> Object:
        kind, key = kind_of(wanted), key_of(wanted)
        await self._call("create", kind, key)
        if (kind, key) in self.objects:
            raise ApiError(409, "AlreadyExists", "")
        self.writes[kind.kind] += 1
        return copy.deepcopy(self._store(kind, key, copy.deepcopy(dict(wanted)), None))

    async def update(self, wanted: Object) -> Object:
        kind, key = kind_of(wanted), key_of(wanted)
        await self._call("update", kind, key)
        before = self._present(kind, key)
        version = metadata(wanted).get("resourceVersion")
        if version is not None and version != before["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        self.writes[kind.kind] += 1
        return copy.deepcopy(self._store(kind, key, copy.deepcopy(dict(wanted)), before))

    async def apply(self, wanted: Object) -> Object:
        kind, key = kind_of(wanted), key_of(wanted)
        await self._call("apply", kind, key)
        before = self.objects.get((kind, key))
        merged = _merged(before or {}, wanted)
        self.writes[kind.kind] += 1
        if before is not None and merged == before:
            return copy.deepcopy(before)
        return copy.deepcopy(self._store(kind, key, merged, before))

    async def patch(
        self, kind: Kind, key: Key, change: Mapping[str, Any], subresource: str = ""
    ) -> Object:
        await self._call("patch", kind, key)
        before = self._present(kind, key)
        if subresource:
            change = {subresource: change[subresource]}
        self.writes[f"{kind.kind}/{subresource}" if subresource else kind.kind] += 1
        return copy.deepcopy(self._store(kind, key, _patched(before, change), before))

    async def delete(self, kind: Kind, key: Key, uid: str) -> None:
        await self._call("delete", kind, key)
        found = self.objects.get((kind, key))
        if found is not None and found["metadata"]["uid"] == uid:
            self.writes[kind.kind] += 1
            self.remove(kind, key)

    async def serves(self, kind: Kind) -> bool:
        return True

    async def _call(self, verb: str, kind: Kind, key: Key) -> None:
        """Others may run between any two calls, as over a network."""
        await asyncio.sleep(0)
        self.calls.append((verb, kind.kind, key))
        self.refuse(verb, kind, key)

    def _present(self, kind: Kind, key: Key) -> dict[str, Any]:
        found = self.objects.get((kind, key))
        if found is None:
            raise ApiError(404, "NotFound", "")
        return found

    def _store(
        self, kind: Kind, key: Key, made: dict[str, Any], before: dict[str, Any] | None
    ) -> dict[str, Any]:
        meta = made["metadata"] = dict(made.get("metadata") or {})
        version = next(self._versions)
        meta["resourceVersion"] = str(version)
        if before is None:
            meta.setdefault("uid", f"uid-{next(self._uids)}")
            meta.setdefault("creationTimestamp", self._stamp())
            meta["generation"] = 1
        else:
            meta["uid"] = before["metadata"]["uid"]
            meta["creationTimestamp"] = before["metadata"]["creationTimestamp"]
            changed = made.get("spec") != before.get("spec")
            meta["generation"] = before["metadata"]["generation"] + int(changed)
        self.objects[kind, key] = made
        self._record(kind, "ADDED" if before is None else "MODIFIED", made, version)
        return made

    def _record(
        self, kind: Kind, event: str, found: dict[str, Any], version: int | None = None
    ) -> None:
        number = version if version is not None else next(self._versions)
        seen = {**found, "metadata": {**found["metadata"], "resourceVersion": str(number)}}
        self._log.append((number, kind, event, seen))
        self._wake()

    def _latest(self) -> int:
        return self._log[-1][0] if self._log else 0

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _selected(found: Object, namespace: str, selectors: Mapping[str, str]) -> bool:
    meta = metadata(found)
    if namespace and meta.get("namespace") != namespace:
        return False
    wanted = [(name, one) for name, selector in selectors.items() for one in selector.split(",")]
    for name, selector in wanted:
        left, _, right = selector.partition("=")
        field, differs = left.removesuffix("!"), left.endswith("!")
        value = (
            (meta.get("labels") or {}).get(field)
            if name == "labelSelector"
            else path(found, *field.split("."))
        )
        if name in ("labelSelector", "fieldSelector") and (value == right) is differs:
            return False
    return True


def _merged(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Server-side apply, near enough: maps are merged, lists with names too, others replaced."""
    made = copy.deepcopy(dict(before))
    for name, value in wanted.items():
        former = made.get(name)
        if name not in _ATOMIC and isinstance(value, Mapping) and isinstance(former, Mapping):
            made[name] = _merged(former, value)
        elif isinstance(former, list) and _is_named(value) and _is_named(former):
            by_name = {one["name"]: one for one in former}
            made[name] = [_merged(by_name.get(one["name"], {}), one) for one in value]
        else:
            made[name] = copy.deepcopy(value)
    return made


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value)


def _patched(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    made = copy.deepcopy(dict(before))
    for name, value in change.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, Mapping):
            former = made.get(name)
            made[name] = _patched(former if isinstance(former, Mapping) else {}, value)
        else:
            made[name] = copy.deepcopy(value)
    return made
