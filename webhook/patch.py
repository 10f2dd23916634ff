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
from webhook.pod_view import Container, Metadata, Pod
from webhook.sidecar_spec import CONTAINER, URL_VARIABLE, Sidecar
from webhook.sidecar_volumes import SHARED_VOLUMES

_NO_METADATA: Final = Metadata()
_encoder: Final = msgspec.json.Encoder()


class _Operation(msgspec.Struct, frozen=True, tag_field="op", tag="add"):
    """One operation of a JSON Patch (RFC 6902)."""

    path: str
    value: Any


def _add(path: str, value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(_Operation(path, value)))


class _Written(msgspec.Struct, frozen=True, eq=False):
    """The operations of all pods that get the same sidecar, for the patch to choose from.

    Those of annotations and labels come with the key and the value that they add, and those of
    volumes with the volume's name.
    """

    annotations: tuple[tuple[str, str, msgspec.Raw], ...]
    labels: tuple[tuple[str, str, msgspec.Raw], ...]
    volumes: tuple[tuple[str, msgspec.Raw], ...]
    container: msgspec.Raw


# Where in the list of init containers ours goes.
_FIRST: Final = "/0"
_LAST: Final = "/-"
_ALONE: Final = ""  # there is no list

_EACH_SHARED_VOLUME: Final = tuple(
    [(volume["name"], _add("/spec/volumes/-", volume)) for volume in SHARED_VOLUMES]
)


@lru_cache(maxsize=256)
def _written(sidecar: Sidecar, place: str) -> _Written:
    own, container = sidecar.credential, sidecar.container_for_json
    return _Written(
        _each_entry("annotations", sidecar.annotations),
        _each_entry("labels", sidecar.labels),
        ((own["name"], _add("/spec/volumes/-", own)), *_EACH_SHARED_VOLUME),
        _add(f"/spec/initContainers{place}", [container] if place == _ALONE else container),
    )


def _each_entry(field: str, ours: Mapping[str, str]) -> tuple[tuple[str, str, msgspec.Raw], ...]:
    return tuple([(key, value, _entry(field, key, value)) for key, value in ours.items()])


@lru_cache(maxsize=256)
def _entry(field: str, key: str, value: str) -> msgspec.Raw:
    return _add(f"/metadata/{field}/{escape(key)}", value)


def patch(pod: Pod, options: InjectionOptions, sidecar: Sidecar) -> bytes:
    """What makes the pod an injected one, as JSON; empty if it is one already."""
    metadata, spec = pod.metadata or _NO_METADATA, pod.spec
    present = spec.initContainers
    place = _ALONE if present is None else _FIRST if options.first else _LAST
    written = _written(sidecar, place)
    operations = [_add("/metadata", {})] if pod.metadata is None else []
    if metadata.annotations is None:
        operations.append(_add("/metadata/annotations", sidecar.annotations))
    else:
        operations += _missing(metadata.annotations, written.annotations)
    if metadata.labels is None:
        operations.append(_add("/metadata/labels", sidecar.labels))
    else:
        operations += _missing(metadata.labels, written.labels)
    if spec.volumes is None:
        operations.append(_add("/spec/volumes", sidecar.volumes))
    else:
        names = [volume.name for volume in spec.volumes]
        operations += [volume for name, volume in written.volumes if name not in names]
    # Before the sidecar goes in: that moves the others' places.
    operations += _variables("initContainers", present or (), options, sidecar.url)
    operations += _variables("containers", spec.containers, options, sidecar.url)
    if CONTAINER not in [container.name for container in present or ()]:
        operations.append(written.container)
    return _encoder.encode(operations) if operations else b""


def _missing(
    present: Mapping[str, str], ours: Sequence[tuple[str, str, msgspec.Raw]]
) -> list[msgspec.Raw]:
    return [operation for key, value, operation in ours if present.get(key) != value]


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
