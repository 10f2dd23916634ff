"""Where manifests hold pods, and how a controller creates the pod of a template."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from webhook.annotations import INJECT, PREFIX, PUBLIC
from webhook.pod_view import Malformed
from webhook.reasons import quoted

# Where the pod lies in each kind that is injected offline.
INJECTED_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
# Where other kinds, known to us or not, may hold one: Rollout, DeploymentConfig, Knative Service.
_OTHER_PLACES: Final = (
    ("spec", "template"),
    ("spec", "jobTemplate", "spec", "template"),
    ("template",),
)

_TYPES: Final[Mapping[type, str]] = {
    bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a mapping",
}  # fmt: skip


def within(raw: Any, path: Sequence[str]) -> Any:
    """The value at the path; None where there is none."""
    for part in path:
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw


def items(document: Any) -> list[tuple[tuple[str, ...], Any]]:
    """The objects of a document with their paths: one, or the items of a List, PodList and so on.

    An item of a typed list needs no kind of its own.
    """
    kind = str(document.get("kind") or "") if isinstance(document, dict) else ""
    if not kind.endswith("List") or not isinstance(document.get("items"), list):
        return [((), document)]
    of_kind = {"kind": kind.removesuffix("List")} if kind != "List" else {}
    return [
        (("items", str(at)), of_kind | item if isinstance(item, dict) else item)
        for at, item in enumerate(document["items"])
    ]


def other_template(raw: Any) -> tuple[str, ...] | None:
    """The path of a pod template in a kind that is not injected offline."""
    for path in _OTHER_PLACES:
        if isinstance(within(raw, (*path, "spec", "containers")), list):
            return path
    return None


def as_created(template: Any, kind: str, metadata: Mapping[str, Any]) -> Any:
    """The pod as its controller creates it, as far as decisions depend on it.

    The template may have no metadata. Null annotations and labels are empty texts, as the API
    server stores them.
    """
    if not isinstance(template, dict):
        return template
    own = template.get("metadata")
    own = {} if own is None else own
    if not isinstance(own, dict):
        return template
    own = own | {
        field: {key: "" if value is None else value for key, value in own[field].items()}
        for field in ("annotations", "labels")
        if isinstance(own.get(field), dict)
    }
    if kind != "Pod":
        owner = {"kind": kind, "name": str(metadata.get("name") or ""), "controller": True}
        own = own | {"ownerReferences": [owner]}
    return template | {"metadata": own}


def not_strings(pod: Any) -> Iterator[tuple[tuple[str, ...], Malformed]]:
    """Values without quotes where Kubernetes wants strings, each with its path in the pod."""
    for field, name in (("annotations", "annotation"), ("labels", "label")):
        entries = within(pod, ("metadata", field))
        for key, value in entries.items() if isinstance(entries, dict) else ():
            if kind := _TYPES.get(type(value)):
                text = f"{name} {quoted(key)} is {kind}, not a string; put its value in quotes"
                yield ("metadata", field, key), Malformed(text)
    for field in ("initContainers", "containers"):
        containers = within(pod, ("spec", field))
        for at, container in enumerate(containers if isinstance(containers, list) else ()):
            env = within(container, ("env",))
            for place, entry in enumerate(env if isinstance(env, list) else ()):
                if kind := _TYPES.get(type(within(entry, ("value",)))):
                    text = (
                        f"variable {quoted(str(entry.get('name')))} is {kind}, not a string; put "
                        "its value in quotes"
                    )
                    path = ("spec", field, str(at), "env", str(place), "value")
                    yield path, Malformed(text)


def misplaced(raw: Mapping[str, Any], path: Sequence[str]) -> Iterator[str]:
    """Warnings about settings that no pod will have: on the wrong object, or as labels.

    `path` is the pod's path in the object.
    """
    pod, right = within(raw, path), ".".join((*path, "metadata", "annotations"))
    wanted = _settings(within(pod, ("metadata", "annotations")))
    for metadata, of_pod in ((within(pod, ("metadata",)), True), (raw.get("metadata"), False)):
        for field in ("labels", "annotations"):
            if (of_pod and field == "annotations") or (not of_pod and not path):
                continue
            for key in _settings(within(metadata, (field,))):
                if key not in wanted:
                    place = f"{'template' if of_pod and path else 'object'}'s {field}"
                    yield f"{key} in the {place} has no effect; it belongs in {right}"


def without_pod(raw: Mapping[str, Any]) -> Iterator[str]:
    """A warning about an opt-in on an object that has no pods."""
    for field in ("annotations", "labels"):
        if raw.get("kind") != "Namespace" and INJECT in _settings(within(raw, ("metadata", field))):
            yield f"{INJECT} has no effect here; it belongs in the annotations of pods"


def _settings(entries: Any) -> list[str]:
    return [key for key in entries if key in PUBLIC] if isinstance(entries, dict) else []


def mentions_us(raw: Any, path: Sequence[str]) -> bool:
    """Whether the pod has an annotation of ours, a misspelt one included."""
    annotations = within(raw, (*path, "metadata", "annotations"))
    return isinstance(annotations, dict) and any(str(key).startswith(PREFIX) for key in annotations)
