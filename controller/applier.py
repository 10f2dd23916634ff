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
        found = observed if observed is not None else self._observe(kind, key)
        if found is not None and self._is_so(found, wanted, digest):
            return False
        meta = metadata(wanted)
        marks = {**(meta.get("annotations") or {}), APPLIED: digest}
        self._check()
        made = await self._writes.apply({**wanted, "metadata": {**meta, "annotations": marks}})
        self._answers[kind.kind, key] = (digest, str(metadata(made).get("resourceVersion")))
        return True

    async def write_status(
        self, kind: Kind, found: Object, status: Mapping[str, Any], leave: str = ""
    ) -> bool:
        """Write the status where it differs; whether there was a write.

        The member `leave` is somebody else's: another reconciliation writes it.
        """
        before = {k: v for k, v in (found.get("status") or {}).items() if k != leave}
        if before == status:
            return False
        gone = {name: None for name in before if name not in status}
        change = {"status": {**status, **gone}}
        self._check()
        await self._writes.patch(kind, key_of(found), change, "status")
        return True

    async def record(self, found: Object, event: Event) -> None:
        """An event on the object; the same one is written once an hour at most."""
        now = self._clock()
        about = f"{uid(found)} {event.reason} {event.message} {now:%Y%m%d%H}"
        digest = hashlib.sha256(about.encode()).hexdigest()[:16]
        name, namespace = key_of(found).name, key_of(found).namespace
        made = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{name[:200]}.{digest}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": found.get("apiVersion"),
                "kind": found.get("kind"),
                "name": name,
                "namespace": namespace,
                "uid": uid(found),
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

    def _is_so(self, found: Object, wanted: Object, digest: str) -> bool:
        """Whether the object has every field of ours, and no field that was ours before."""
        if annotations(found).get(APPLIED) != digest:
            return False
        if includes(found, wanted):
            return True
        # The API server may write a value another way than we do. Its answer to this very
        # request is what it makes of it.
        key = (kind_of(wanted).kind, key_of(wanted))
        return self._answers.get(key) == (digest, str(metadata(found).get("resourceVersion")))


def includes(found: Any, wanted: Any) -> bool:
    """Whether `found` has everything of `wanted`; what it has beyond is others' or a default."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            _has_owners(found.get(name), value)
            if name == "ownerReferences"
            else name in found
            and (found[name] == value if name in _WHOLE else includes(found[name], value))
            for name, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        if isinstance(found, list) and wanted and _is_named(wanted) and _is_named(found):
            # Elements with other names belong to others, as server-side apply sees it.
            by_name = {one["name"]: one for one in found}
            return all(includes(by_name.get(one["name"]), one) for one in wanted)
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(includes(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


def _is_named(value: Any) -> bool:
    return all(isinstance(one, Mapping) and "name" in one for one in value)


def _has_owners(found: Any, wanted: Any) -> bool:
    return all(any(includes(one, owner) for one in found or ()) for owner in wanted)


def _digest(wanted: Object) -> str:
    """Of our fields. A Secret's data are compared as they are and stay out of an annotation."""
    counted = {k: v for k, v in wanted.items() if not (wanted["kind"] == "Secret" and k == "data")}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def _kind(found: Object) -> Kind:
    """Objects of lists carry no apiVersion."""
    versions = {"ConfigMap": "v1", "Job": "batch/v1"}
    return kind_of({"apiVersion": versions.get(str(found["kind"])), **found})
