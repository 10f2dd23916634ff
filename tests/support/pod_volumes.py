"""What a kubelet does with a pod's volumes: Secrets and ConfigMaps become files in a folder."""

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Find = Callable[[str, str], Mapping[str, Any] | None]
"""An object by kind (Secret or ConfigMap) and name; None where there is none."""


def mount(pod: Mapping[str, Any], find: Find, folder: Path) -> None:
    """Write the volumes of the pod's first container below `folder`, at their mount paths.

    Raises KeyError, as a kubelet waits, where an object is missing that is not optional.
    """
    volumes = {one["name"]: one for one in pod["volumes"]}
    for one in pod["containers"][0]["volumeMounts"]:
        target = folder / one["mountPath"].lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        for name, content in _files(volumes[one["name"]], find):
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f".{file.name}.draft")
            draft.write_bytes(content)
            draft.replace(file)


def _files(volume: Mapping[str, Any], find: Find) -> Iterator[tuple[str, bytes]]:
    if "projected" in volume:
        for source in volume["projected"]["sources"]:
            ((kind, one),) = source.items()
            yield from _source(kind, one, one["name"], find)
    for kind, member in (("secret", "secretName"), ("configMap", "name")):
        if kind in volume:
            yield from _source(kind, volume[kind], volume[kind][member], find)


def _source(
    kind: str, source: Mapping[str, Any], name: str, find: Find
) -> Iterator[tuple[str, bytes]]:
    found = find("Secret" if kind == "secret" else "ConfigMap", name)
    if found is None:
        if source.get("optional"):
            return
        raise KeyError(f"{kind} {name}")
    paths = {one["key"]: one["path"] for one in source.get("items", ())}
    for key, value in (found.get("data") or {}).items():
        if paths and key not in paths:
            continue
        content = b64decode(value) if kind == "secret" else str(value).encode()
        yield paths.get(key, key), content


def localised(text: str, folder: Path, host: str) -> str:
    """A configuration with its absolute paths below `folder`, on one address of this machine."""
    for root in ("/etc/tokenward", "/var/run/tokenward", "/var/lib/tokenward"):
        text = text.replace(root, f"{folder}{root}")
    return text.replace("'::'", host)
