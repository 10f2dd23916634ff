"""Pure: pod + sidecar -> JSON Patch, `add` operations only.

`add` on a member that exists would replace it, so nothing is added where something stands, except
our own annotations and label. No array or map of the pod is ever written again: fields we do not
know stay as they are.

Nothing of a pod goes into an operation but the places of its containers, so operations are written
once for all pods that get the same sidecar, and a patch is put together of them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from jsonpointer import escape

from webhook.options import InjectionOptions
from webhook.pod_view import Container, Metadata, Pod, Volume
from webhook.sidecar_spec import CONTAINER, URL_VARIABLE, Sidecar

_NO_METADATA: Final = Metadata()
_encoder: Final = msgspec.json.Encoder()


class _Operation(msgspec.Struct, frozen=True, tag_field="op", tag="add"):
    """One operation of a JSON Patch (RFC 6902)."""

    path: str
    value: Any


def _add(path: str, value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(_Operation(path, value)))


def patch(pod: Pod, options: InjectionOptions, sidecar: Sidecar) -> bytes:
    """What makes the pod an injected one, as JSON; empty if it is one already."""
    metadata, spec = pod.metadata or _NO_METADATA, pod.spec
    operations = [
        *([_add("/metadata", {})] if pod.metadata is None else ()),
        *_entries("annotations", metadata.annotations, sidecar.annotations),
        *_entries("labels", metadata.labels, sidecar.labels),
        *_volumes(spec.volumes, sidecar),
        # Before the sidecar goes in: that moves the others' places.
        *_variables("initContainers", spec.initContainers or (), options, sidecar.url),
        *_variables("containers", spec.containers, options, sidecar.url),
        *_container(spec.initContainers, options, sidecar),
    ]
    return _encoder.encode(operations) if operations else b""


def _entries(
    field: str, present: Mapping[str, str] | None, ours: Mapping[str, str]
) -> list[msgspec.Raw]:
    if present is None:
        return [_add(f"/metadata/{field}", ours)]
    return [_entry(field, key, value) for key, value in ours.items() if present.get(key) != value]


@lru_cache(maxsize=256)
def _entry(field: str, key: str, value: str) -> msgspec.Raw:
    return _add(f"/metadata/{field}/{escape(key)}", value)


def _volumes(present: Sequence[Volume] | None, sidecar: Sidecar) -> list[msgspec.Raw]:
    if present is None:
        return [_add("/spec/volumes", sidecar.volumes)]
    names = [volume.name for volume in present]
    return [volume for name, volume in _each_volume(sidecar) if name not in names]


@lru_cache(maxsize=256)
def _each_volume(sidecar: Sidecar) -> list[tuple[str, msgspec.Raw]]:
    return [(volume["name"], _add("/spec/volumes/-", volume)) for volume in sidecar.volumes]


def _variables(
    field: str, present: Sequence[Container], options: InjectionOptions, url: str
) -> list[msgspec.Raw]:
    operations = []
    for at, container in enumerate(present):
        if container.name == CONTAINER or not options.applies_to(container.name):
            continue
        if container.env is None:
            operations.append(_only_variable(field, at, url))
        elif URL_VARIABLE not in [entry.name for entry in container.env]:
            operations.append(_first_variable(field, at, url))
    return operations


@lru_cache(maxsize=64)
def _only_variable(field: str, at: int, url: str) -> msgspec.Raw:
    return _add(f"/spec/{field}/{at}/env", [{"name": URL_VARIABLE, "value": url}])


@lru_cache(maxsize=64)
def _first_variable(field: str, at: int, url: str) -> msgspec.Raw:
    # First in the list, so that the app's own entries may refer to ours.
    return _add(f"/spec/{field}/{at}/env/0", {"name": URL_VARIABLE, "value": url})


def _container(
    present: Sequence[Container] | None, options: InjectionOptions, sidecar: Sidecar
) -> Sequence[msgspec.Raw]:
    if present is None:
        return [_only_container(sidecar)]
    if CONTAINER in [container.name for container in present]:
        return ()
    return [_another_container(sidecar, "0" if options.first else "-")]


@lru_cache(maxsize=256)
def _only_container(sidecar: Sidecar) -> msgspec.Raw:
    return _add("/spec/initContainers", [sidecar.container])


@lru_cache(maxsize=256)
def _another_container(sidecar: Sidecar, place: str) -> msgspec.Raw:
    return _add(f"/spec/initContainers/{place}", sidecar.container)
