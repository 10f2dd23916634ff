"""Kubernetes objects as dicts: the members that every kind has.

Dicts and no typed models: a model drops members that it does not know.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = Mapping[str, Any]


class Key(NamedTuple):
    """Names one object of a kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def metadata(obj: Object) -> Mapping[str, Any]:
    value = obj.get("metadata")
    return value if isinstance(value, Mapping) else {}


def key_of(obj: Object) -> Key:
    return Key(str(metadata(obj).get("namespace", "")), str(metadata(obj).get("name", "")))


def uid(obj: Object) -> str:
    return str(metadata(obj).get("uid", ""))


def version(obj: Object) -> str:
    """Which state of the object this is; only equality means something."""
    return str(metadata(obj).get("resourceVersion", ""))


def annotations(obj: Object) -> Mapping[str, str]:
    return metadata(obj).get("annotations") or {}


def labels(obj: Object) -> Mapping[str, str]:
    return metadata(obj).get("labels") or {}


def generation(obj: Object) -> int:
    return int(metadata(obj).get("generation", 0))


def is_being_deleted(obj: Object) -> bool:
    return bool(metadata(obj).get("deletionTimestamp"))


def same_wish(before: Object | None, now: Object | None) -> bool:
    """Whether nothing changed that anybody wishes: only the status, which is ours."""
    if before is None or now is None:
        return False
    return (
        uid(before) == uid(now)
        and generation(before) == generation(now)
        and annotations(before) == annotations(now)
        and is_being_deleted(before) == is_being_deleted(now)
        and before.get("spec") == now.get("spec")
    )


def created(obj: Object) -> datetime:
    """When the API server made the object; the beginning of time where it does not say."""
    return parse_time(metadata(obj).get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)


def parse_time(text: object) -> datetime | None:
    """A time in RFC 3339, or None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else None


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with seconds, as `metav1.Time` is written."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as `metav1.MicroTime` is written."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def path(obj: Object, *names: str) -> Any:
    """The member at this path, or None where a part of the path is missing."""
    value: Any = obj
    for name in names:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def dicts(value: object) -> Iterator[Mapping[str, Any]]:
    """The mappings of a list; nothing where it is none."""
    if isinstance(value, list | tuple):
        yield from (one for one in value if isinstance(one, Mapping))
