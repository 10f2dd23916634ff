"""Pure: pod + sidecar -> JSON Patch, `add` operations only.

`add` on a member that exists would replace it, so nothing is added where something stands, except
our own annotations and label. No array or map of the pod is ever written again: fields we do not
know stay as they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jsonpointer import escape

from webhook.sidecar_spec import CONTAINER, Sidecar

Operation = dict[str, Any]


def operations(pod: Mapping[str, Any], sidecar: Sidecar) -> list[Operation]:
    """What makes the pod an injected one; nothing at all if it is one already."""
    spec = pod.get("spec") or {}
    parents = [] if pod.get("metadata") is not None else [_add("/metadata", {})]
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


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _metadata(
    pod: Mapping[str, Any], field: str, entries: Mapping[str, str]
) -> Iterator[Operation]:
    present = (pod.get("metadata") or {}).get(field)
    if present is None:
        yield _add(f"/metadata/{field}", dict(entries))
        return
    for key, value in entries.items():
        if present.get(key) != value:
            yield _add(f"/metadata/{field}/{escape(key)}", value)


def _volumes(spec: Mapping[str, Any], sidecar: Sidecar) -> Iterator[Operation]:
    present = spec.get("volumes")
    if present is None:
        yield _add("/spec/volumes", list(sidecar.volumes))
        return
    names = {volume.get("name") for volume in present}
    for volume in sidecar.volumes:
        if volume["name"] not in names:
            yield _add("/spec/volumes/-", volume)


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
            yield _add(f"/spec/{field}/{at}/env", missing)
            continue
        for variable in reversed(missing):
            # First in the list, so that the app's own entries may refer to ours.
            yield _add(f"/spec/{field}/{at}/env/0", variable)


def _sidecar(spec: Mapping[str, Any], sidecar: Sidecar) -> Iterator[Operation]:
    present = spec.get("initContainers")
    if present is None:
        yield _add("/spec/initContainers", [sidecar.container])
    elif all(container["name"] != CONTAINER for container in present):
        yield _add(f"/spec/initContainers/{0 if sidecar.first else '-'}", sidecar.container)
