"""Pure: pod + sidecar -> JSON Patch, `add` operations only.

`add` on a member that exists would replace it, so nothing is added where something stands, except
our own annotations and label. No array or map of the pod is ever written again: fields we do not
know stay as they are.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from jsonpointer import escape

from webhook.sidecar_spec import CONTAINER, Sidecar


class Operation(msgspec.Struct, frozen=True, tag_field="op", tag="add"):
    """One operation of a JSON Patch (RFC 6902)."""

    path: str
    value: Any


_escaped = lru_cache(maxsize=16)(escape)  # of our own keys, which are three


def operations(pod: Mapping[str, Any], sidecar: Sidecar) -> list[Operation]:
    """What makes the pod an injected one; nothing at all if it is one already."""
    spec = pod.get("spec") or {}
    parents = [] if pod.get("metadata") is not None else [Operation("/metadata", {})]
    return [
        *parents,
        *_metadata(pod, "annotations", sidecar.annotations),
        *_metadata(pod, "labels", sidecar.labels),
        *_volumes(spec, sidecar),
        # Before the sidecar goes in: that moves the others' places.
        *_variables(spec, "initContainers", sidecar),
        *_variables(spec, "containers", sidecar),
        *_sidecar(spec, sidecar),
    ]


def _metadata(
    pod: Mapping[str, Any], field: str, entries: Mapping[str, str]
) -> Iterator[Operation]:
    present = (pod.get("metadata") or {}).get(field)
    if present is None:
        yield Operation(f"/metadata/{field}", entries)
        return
    for key, value in entries.items():
        if present.get(key) != value:
            yield Operation(f"/metadata/{field}/{_escaped(key)}", value)


def _volumes(spec: Mapping[str, Any], sidecar: Sidecar) -> Iterator[Operation]:
    present = spec.get("volumes")
    if present is None:
        yield Operation("/spec/volumes", sidecar.volumes)
        return
    names = {volume.get("name") for volume in present}
    for volume in sidecar.volumes:
        if volume["name"] not in names:
            yield Operation("/spec/volumes/-", volume)


def _variables(spec: Mapping[str, Any], field: str, sidecar: Sidecar) -> Iterator[Operation]:
    for at, container in enumerate(spec.get(field) or ()):
        if container["name"] == CONTAINER or not sidecar.reaches(container["name"]):
            continue
        present = container.get("env")
        names = {entry.get("name") for entry in present or ()}
        missing = [
            {"name": name, "value": value}
            for name, value in sidecar.app_variables
            if name not in names
        ]
        if present is None and missing:
            yield Operation(f"/spec/{field}/{at}/env", missing)
            continue
        for variable in reversed(missing):
            # First in the list, so that the app's own entries may refer to ours.
            yield Operation(f"/spec/{field}/{at}/env/0", variable)


def _sidecar(spec: Mapping[str, Any], sidecar: Sidecar) -> Iterator[Operation]:
    present = spec.get("initContainers")
    if present is None:
        yield Operation("/spec/initContainers", [sidecar.container])
    elif all(container["name"] != CONTAINER for container in present):
        place = "0" if sidecar.first else "-"
        yield Operation(f"/spec/initContainers/{place}", sidecar.container)
