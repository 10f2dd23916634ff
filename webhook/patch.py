"""Pure: pod + sidecar -> JSON Patch, `add` operations only.

`add` on a member that exists would replace it, so nothing is added where something stands, except
our own annotations and label. No array or map of the pod is ever written again: fields we do not
know stay as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from jsonpointer import escape

from webhook.shape import Container, Metadata, Pod, Volume
from webhook.sidecar_spec import CONTAINER, URL_VARIABLE, Sidecar


class Operation(msgspec.Struct, frozen=True, tag_field="op", tag="add"):
    """One operation of a JSON Patch (RFC 6902)."""

    path: str
    value: Any


_escaped = lru_cache(maxsize=16)(escape)  # of our own keys, which are three


def operations(pod: Pod, sidecar: Sidecar) -> list[Operation]:
    """What makes the pod an injected one; nothing at all if it is one already."""
    metadata, spec = pod.metadata or Metadata(), pod.spec
    parents = [] if pod.metadata is not None else [Operation("/metadata", {})]
    return [
        *parents,
        *_entries("annotations", metadata.annotations, sidecar.annotations),
        *_entries("labels", metadata.labels, sidecar.labels),
        *_volumes(spec.volumes, sidecar),
        # Before the sidecar goes in: that moves the others' places.
        *_variables("initContainers", spec.initContainers or (), sidecar),
        *_variables("containers", spec.containers, sidecar),
        *_sidecar(spec.initContainers, sidecar),
    ]


def _entries(
    field: str, present: Mapping[str, str] | None, ours: Mapping[str, str]
) -> list[Operation]:
    if present is None:
        return [Operation(f"/metadata/{field}", ours)]
    return [
        Operation(f"/metadata/{field}/{_escaped(key)}", value)
        for key, value in ours.items()
        if present.get(key) != value
    ]


def _volumes(present: Sequence[Volume] | None, sidecar: Sidecar) -> list[Operation]:
    if present is None:
        return [Operation("/spec/volumes", sidecar.volumes)]
    names = {volume.name for volume in present}
    return [
        Operation("/spec/volumes/-", volume)
        for volume in sidecar.volumes
        if volume["name"] not in names
    ]


def _variables(field: str, present: Sequence[Container], sidecar: Sidecar) -> Iterator[Operation]:
    variable = {"name": URL_VARIABLE, "value": sidecar.url}
    for at, container in enumerate(present):
        if container.name == CONTAINER or not sidecar.reaches(container.name):
            continue
        if container.env is None:
            yield Operation(f"/spec/{field}/{at}/env", [variable])
        elif all(entry.name != URL_VARIABLE for entry in container.env):
            # First in the list, so that the app's own entries may refer to ours.
            yield Operation(f"/spec/{field}/{at}/env/0", variable)


def _sidecar(present: Sequence[Container] | None, sidecar: Sidecar) -> list[Operation]:
    if present is None:
        return [Operation("/spec/initContainers", [sidecar.container])]
    if any(container.name == CONTAINER for container in present):
        return []
    place = "0" if sidecar.first else "-"
    return [Operation(f"/spec/initContainers/{place}", sidecar.container)]
