"""`python -m webhook inject`: injects a stream of manifests offline.

It decides with the same `evaluate` as the webhook, so it shows what a cluster with this
configuration makes of each pod. A document that does not change is printed byte for byte.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jsonpointer import JsonPointer

from chassis.process import EXIT_BAD_CONFIGURATION, ConfigurationError
from webhook import manifest_editor, manifest_reader, pod_templates, pod_view
from webhook.annotations import INJECT, SERVER
from webhook.doors import doors
from webhook.evaluate import AdmissionResult, evaluate
from webhook.manifest_reader import Unreadable
from webhook.manifest_stream import Document, documents
from webhook.pod_templates import INJECTED_KINDS, within
from webhook.reasons import Reason, quoted
from webhook.settings import Settings, check, load
from webhook.sidecar_spec import CONTAINER
from webhook.value_types import CaBundle
from webhook.yaml_output import dump

EXIT_DENIED: Final = 1
EXIT_BAD_USAGE: Final = 2


class _BadUsage(Exception):
    """The command cannot be carried out as it was given."""


@dataclass(frozen=True)
class _Judged:
    """One object of a document and its verdict; no verdict where no pod of it is injected here.

    `operations` are those of the whole document.
    """

    name: str
    path: tuple[str, ...]
    verdict: AdmissionResult | None = None
    operations: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def denied(self) -> bool:
        return self.verdict is not None and not self.verdict.allowed


@dataclass(frozen=True)
class _Scope:
    """What the decisions of one run have in common."""

    settings: Settings
    namespace: str
    opted_in: frozenset[str]

    def evaluate(self, pod: Any, namespace: str) -> AdmissionResult:
        opted_in = namespace in self.opted_in
        view = pod_view.read(pod)
        return evaluate(view, namespace, self.settings, namespace_opted_in=opted_in)


def inject(arguments: argparse.Namespace) -> int:
    """Carry out the command; the exit code is the contract's."""
    try:
        stream = list(documents(_text(arguments.file)))
        settings = _settings(arguments.config)
    except ConfigurationError as bad:
        for fault in bad.faults:
            _tell(f"error: {fault}")
        return EXIT_BAD_CONFIGURATION
    except Unreadable as unreadable:
        _tell(f"error: not YAML: {unreadable}")
        return EXIT_BAD_USAGE
    except _BadUsage as bad_usage:
        _tell(f"error: {bad_usage}")
        return EXIT_BAD_USAGE
    scope = _Scope(settings, arguments.namespace, _opted_in(stream))
    denied = False
    for document in stream:
        judged = [
            _judged(raw, path, document, scope) for path, raw in pod_templates.items(document.data)
        ]
        denied |= any(one.denied for one in judged)
        _report(judged)
        _write(_explained(judged) if arguments.explain else _printed(document, judged))
    return EXIT_DENIED if denied else 0


def _text(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode("utf-8")
    except OSError as error:
        raise _BadUsage(f"{file}: {(error.strerror or 'not readable').lower()}") from None
    except UnicodeDecodeError:
        raise _BadUsage(f"{file}: not UTF-8") from None


def _write(text: str) -> None:
    # Bytes, so that line ends stay as they are.
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - a terminal is listening


def _settings(config: str | None) -> Settings:
    if config is not None:
        return load(Path(config))
    _tell("note: no --config; image and addresses are placeholders")
    return placeholders()


def placeholders() -> Settings:
    """A configuration whose every address says that it is none."""
    return check(
        {
            "image": f"registry.invalid/tokenward/sidecar@sha256:{'0' * 64}",
            "trustDomain": "cluster.local",
            "issuer": "https://auth.invalid",
            "authserver": {
                "url": "https://authserver.invalid:8443",
                "caFile": CaBundle(Path("placeholder"), "the operator's CA bundle\n"),
            },
        },
        Path(),
    )


def _opted_in(stream: Sequence[Document]) -> frozenset[str]:
    """Namespaces that the stream itself opts in."""
    return frozenset(
        str(within(raw, ("metadata", "name")))
        for document in stream
        for _, raw in pod_templates.items(document.data)
        if within(raw, ("kind",)) == "Namespace"
        and within(raw, ("metadata", "labels", INJECT)) == "enabled"
    )


def _judged(raw: Any, at: tuple[str, ...], document: Document, scope: _Scope) -> _Judged:
    if not isinstance(raw, dict):
        return _Judged("", at)
    kind, metadata = str(raw.get("kind")), within(raw, ("metadata",)) or {}
    metadata = metadata if isinstance(metadata, dict) else {}
    namespace = str(metadata.get("namespace") or scope.namespace)
    name = f"{kind} {namespace}/{metadata.get('name') or metadata.get('generateName') or ''}"
    if kind not in INJECTED_KINDS:
        return _Judged(name, at, warnings=tuple(_passed_by(raw, namespace, scope)))
    path = INJECTED_KINDS[kind]
    template = within(raw, path)
    created = pod_templates.as_created(template, kind, metadata)
    warnings = tuple(pod_templates.misplaced(raw, path))
    if faults := tuple(_not_strings(created, (*at, *path), document)):
        return _Judged(name, at, AdmissionResult("denied", Reason.MALFORMED, refusals=faults))
    try:
        verdict = scope.evaluate(created, namespace)
    except pod_view.Malformed as malformed:
        verdict = AdmissionResult("denied", Reason.MALFORMED, refusals=(str(malformed),))
    if not metadata.get("name") and metadata.get("generateName") and kind != "Pod":
        verdict = _without_stable_name(verdict)
    prefix = JsonPointer.from_parts([*at, *path]).path
    operations = [
        operation | {"path": prefix + operation["path"]} for operation in verdict.operations
    ]
    if operations and within(template, ("metadata",)) is None:
        operations.insert(0, {"op": "add", "path": f"{prefix}/metadata", "value": {}})
    return _Judged(name, at, verdict, tuple(operations), warnings)


def _passed_by(raw: dict[str, Any], namespace: str, scope: _Scope) -> Iterator[str]:
    """What becomes of the pods of a kind that is not injected offline."""
    path = pod_templates.other_template(raw)
    if path is None:
        yield from pod_templates.without_pod(raw)
        return
    yield from pod_templates.misplaced(raw, path)
    created = pod_templates.as_created(within(raw, path), "", {"name": "placeholder"})
    try:
        verdict = scope.evaluate(created, namespace)
    except pod_view.Malformed as malformed:
        verdict = AdmissionResult("denied", Reason.MALFORMED, refusals=(str(malformed),))
    if verdict.decision == "injected":
        yield "this kind is not injected offline; in a cluster the webhook injects its pods"
    elif verdict.decision == "denied" and (
        verdict.reason is not Reason.MALFORMED or pod_templates.mentions_us(raw, path)
    ):
        yield from (f"a cluster will deny its pods: {fault}" for fault in verdict.refusals)
    elif pod_templates.mentions_us(raw, path):
        yield f"this kind is not injected offline, and its pods get no sidecar: {verdict.reason}"


def _not_strings(pod: Any, at: Sequence[str], document: Document) -> Iterator[str]:
    for path, malformed in pod_templates.not_strings(pod):
        line = None
        if not document.is_json and (root := manifest_reader.read(document.text)) is not None:
            line = manifest_reader.line_of(root, (*at, *path), document.text)
        place = f"line {document.first_line - 1 + line}: " if line is not None else ""
        yield f"not a pod: {place}{malformed}"


def _without_stable_name(verdict: AdmissionResult) -> AdmissionResult:
    if verdict.reason is not Reason.NO_SERVER_NAME:
        return verdict
    text = (
        f"generateName gives the workload another name on each run; set annotation {SERVER} in "
        "the pod template"
    )
    return AdmissionResult("denied", verdict.reason, refusals=(text, *verdict.refusals[1:]))


def _report(judged: Sequence[_Judged]) -> None:
    for one in judged:
        for fault in one.verdict.refusals if one.verdict else ():
            _tell(f"denied: {quoted(one.name)}: {fault}")
        for warning in (*one.warnings, *(one.verdict.warnings if one.verdict else ())):
            _tell(f"warning: {quoted(one.name)}: {warning}")


def _explained(judged: Sequence[_Judged]) -> str:
    return "".join(
        "---\n" + dump(_explanation(one, one.verdict)) for one in judged if one.verdict is not None
    )


def _explanation(judged: _Judged, verdict: AdmissionResult) -> dict[str, Any]:
    explanation: dict[str, Any] = {
        "object": judged.name,
        "decision": verdict.decision,
        "reason": verdict.reason.value,
    }
    if verdict.config_hash:
        explanation["configHash"] = verdict.config_hash
    warnings = (*judged.warnings, *verdict.warnings)
    notes, opened = tuple(_notes(judged)), tuple(_doors(judged))
    for field, entries in (
        ("faults", verdict.refusals),
        ("warnings", warnings),
        ("doors", opened),
        ("notes", notes),
    ):
        if entries:
            explanation[field] = list(entries)
    return explanation | {"patch": list(verdict.operations)}


def _sidecars(judged: _Judged) -> Iterator[dict[str, Any]]:
    """The sidecar containers that the patch adds."""
    for operation in judged.operations:
        value = operation["value"]
        for container in value if isinstance(value, list) else [value]:
            if within(container, ("name",)) == CONTAINER and "image" in container:
                yield container


def _doors(judged: _Judged) -> Iterator[str]:
    for container in _sidecars(judged):
        yield from doors(container)


def _notes(judged: _Judged) -> Iterator[str]:
    for container in _sidecars(judged):
        if within(container, ("resources", "limits", "cpu")) is None:
            yield (
                "the sidecar has no CPU limit; in a namespace whose ResourceQuota counts "
                "limits.cpu, set tokenward.dev/cpu-limit, or cpuLimit in the profile"
            )


def _printed(document: Document, judged: Sequence[_Judged]) -> str:
    """The document injected. Denied objects are left out, so that `kubectl apply` never creates
    them without their sidecar.
    """
    kept = [one for one in judged if not one.denied]
    operations = [operation for one in kept for operation in one.operations]
    if len(kept) == len(judged):
        text = document.with_added(operations) if operations else document.text
        return document.before + text
    if not within(document.data, ("items",)):
        return ""
    places = {path[-1] for path in (one.path for one in kept)}
    data = manifest_editor.patched(document.data, operations)
    data["items"] = [item for at, item in enumerate(data["items"]) if str(at) in places]
    return document.before + document.rewritten(data)
