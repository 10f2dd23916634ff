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


def metadata(found: Object) -> Mapping[str, Any]:
    value = found.get("metadata")
    return value if isinstance(value, Mapping) else {}


def key_of(found: Object) -> Key:
    return Key(str(metadata(found).get("namespace", "")), str(metadata(found).get("name", "")))


def uid(found: Object) -> str:
    return str(metadata(found).get("uid", ""))


def annotations(found: Object) -> Mapping[str, str]:
    return metadata(found).get("annotations") or {}


def labels(found: Object) -> Mapping[str, str]:
    return metadata(found).get("labels") or {}


def generation(found: Object) -> int:
    return int(metadata(found).get("generation", 0))


def is_being_deleted(found: Object) -> bool:
    return bool(metadata(found).get("deletionTimestamp"))


def created(found: Object) -> datetime:
    """When the API server made the object; the beginning of time where it does not say."""
    return parse_time(metadata(found).get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)


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


def path(found: Object, *names: str) -> Any:
    """The member at this path, or None where a part of the path is missing."""
    value: Any = found
    for name in names:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def dicts(value: object) -> Iterator[Mapping[str, Any]]:
    """The mappings of a list; nothing where it is none."""
    if isinstance(value, list | tuple):
        yield from (one for one in value if isinstance(one, Mapping))
