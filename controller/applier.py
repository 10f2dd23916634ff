"""Puts a plan into the cluster: what is so already is left alone, and only a leader writes."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from controller.api.kinds import EVENT, Kind, kind_of
from controller.api.objects import (
    Key,
    Object,
    annotations,
    format_time,
    key_of,
    metadata,
    uid,
    version,
)
from controller.cluster import ApiError
from controller.reconcile.plan import MANAGER, Event, Plan

APPLIED: Final = "tokenward.dev/applied"
_MAX_EVENT: Final = 1000
# Maps that belong to one manager as a whole: a key more would select other pods.
_WHOLE: Final = ("selector", "matchLabels", "nodeSelector")


class Writes(Protocol):
    """What is needed of the API server; `controller.cluster.Cluster` is one."""

    async def apply(self, wanted: Object) -> Object: ...

    async def create(self, wanted: Object) -> Object: ...

    async def update(self, wanted: Object) -> Object: ...

    async def delete(self, kind: Kind, key: Key, uid: str) -> None: ...

    async def patch(
        self, kind: Kind, key: Key, change: Mapping[str, Any], subresource: str = ""
    ) -> Object: ...


Observe = Callable[[Kind, Key], Object | None]
"""The object as it was last seen, or None."""


class Applier:
    """`check` raises where this process may not write now."""

    def __init__(
        self,
        writes: Writes,
        observe: Observe,
        check: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._writes, self._observe, self._check, self._clock = writes, observe, check, clock
        self._answers: dict[tuple[str, Key], tuple[str, str]] = {}

    async def run(self, plan: Plan) -> None:
        """Create, update, apply and delete, in this order. The first ApiError ends it."""
        for wanted in plan.create:
            self._check()
            await self._writes.create(wanted)
        for wanted in plan.update:
            self._check()
            await self._writes.update(wanted)
        for wanted in plan.apply:
            await self.apply(wanted)
        for unwanted in plan.delete:
            self._check()
            await self._writes.delete(_kind(unwanted), key_of(unwanted), uid(unwanted))

    async def apply(self, wanted: Object, observed: Object | None = None) -> bool:
        """Server-side apply where something differs; whether there was a write.

        `observed` is for objects of kinds that nobody watches.
        """
        kind, key = kind_of(wanted), key_of(wanted)
        digest = _digest(wanted)
        current = observed if observed is not None else self._observe(kind, key)
        if current is not None and self._is_so(current, wanted, digest):
            return False
        self._check()
        made = await self._writes.apply(_marked(wanted, digest))
        self._answers[kind.kind, key] = (_whole_digest(wanted), version(made))
        return True

    async def create(self, wanted: Object) -> None:
        """Make an object that is not there, as `apply` would have. Raises ApiError, `conflict`."""
        self._check()
        made = await self._writes.create(_marked(wanted, _digest(wanted)))
        self._answers[wanted["kind"], key_of(wanted)] = (_whole_digest(wanted), version(made))

    def version_of(self, kind: Kind, key: Key) -> str:
        """The state of an object after our last write; "" where we wrote none."""
        return self._answers.get((kind.kind, key), ("", ""))[1]

    def forget(self, kind: Kind, key: Key) -> None:
        """The object is gone."""
        self._answers.pop((kind.kind, key), None)

    async def write_status(
        self, kind: Kind, current: Object, status: Mapping[str, Any], *leave: str
    ) -> bool:
        """Write the status where it differs; whether there was a write.

        The members `leave` are somebody else's: another reconciliation writes them.
        """
        before = {k: v for k, v in (current.get("status") or {}).items() if k not in leave}
        if before == status:
            return False
        gone = {name: None for name in before if name not in status}
        change = {"status": {**status, **gone}}
        self._check()
        await self._writes.patch(kind, key_of(current), change, "status")
        return True

    async def record(self, current: Object, event: Event) -> None:
        """An event on the object; the same one is written once an hour at most."""
        now = self._clock()
        about = f"{uid(current)} {event.reason} {event.message} {now:%Y%m%d%H}"
        digest = hashlib.sha256(about.encode()).hexdigest()[:16]
        name, namespace = key_of(current).name, key_of(current).namespace
        made = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{name[:200]}.{digest}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": current.get("apiVersion"),
                "kind": current.get("kind"),
                "name": name,
                "namespace": namespace,
                "uid": uid(current),
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MAX_EVENT],
            "source": {"component": MANAGER},
            "reportingComponent": f"tokenward.dev/{MANAGER}",
            "firstTimestamp": format_time(now),
            "lastTimestamp": format_time(now),
            "count": 1,
        }
        self._check()
        try:
            await self._writes.create(made)
        except ApiError as error:
            # A namespace that ends takes no events, and an event is no reason to fail.
            if not (error.conflict or error.forbidden or error.not_found):
                raise

    def _is_so(self, current: Object, wanted: Object, digest: str) -> bool:
        """Whether the object has every field of ours, and no field that was ours before."""
        if annotations(current).get(APPLIED) != digest:
            return False
        if includes(current, wanted):
            return True
        # The API server may write a value another way than we do. Its answer to this very
        # request is what it makes of it.
        key = (kind_of(wanted).kind, key_of(wanted))
        return self._answers.get(key) == (_whole_digest(wanted), version(current))


def includes(current: Any, wanted: Any) -> bool:
    """Whether `found` has everything of `wanted`; what it has beyond is others' or a default."""
    if isinstance(wanted, Mapping):
        return isinstance(current, Mapping) and all(
            _has_owners(current.get(name), value)
            if name == "ownerReferences"
            else name in current
            and (current[name] == value if name in _WHOLE else includes(current[name], value))
            for name, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        if isinstance(current, list) and wanted and _is_named(wanted) and _is_named(current):
            # Elements with other names belong to others, as server-side apply sees it.
            by_name = {one["name"]: one for one in current}
            return all(includes(by_name.get(one["name"]), one) for one in wanted)
        return (
            isinstance(current, list)
            and len(current) == len(wanted)
            and all(includes(one, other) for one, other in zip(current, wanted, strict=True))
        )
    return bool(current == wanted)


def _is_named(value: Any) -> bool:
    return all(isinstance(one, Mapping) and "name" in one for one in value)


def _has_owners(current: Any, wanted: Any) -> bool:
    return all(any(includes(one, owner) for one in current or ()) for owner in wanted)


def _digest(wanted: Object) -> str:
    """Of our fields. A Secret's data are compared as they are and stay out of an annotation."""
    counted = {k: v for k, v in wanted.items() if not (wanted["kind"] == "Secret" and k == "data")}
    return _whole_digest(counted)


def _whole_digest(wanted: Object) -> str:
    """Of every field, a Secret's data too: for this process's memory only."""
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]


def _marked(wanted: Object, digest: str) -> Object:
    meta = metadata(wanted)
    marks = {**(meta.get("annotations") or {}), APPLIED: digest}
    return {**wanted, "metadata": {**meta, "annotations": marks}}


def _kind(current: Object) -> Kind:
    """Objects of lists carry no apiVersion."""
    versions = {"ConfigMap": "v1", "Job": "batch/v1"}
    return kind_of({"apiVersion": versions.get(str(current["kind"])), **current})
