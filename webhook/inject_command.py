"""`python -m webhook inject`: any manifest stream in, the same stream injected out.

The same `judge` as behind the API server, so it shows what a cluster with this configuration
would make of each pod. Whatever is not touched is printed as it was written.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jsonpatch
import yaml

from chassis.process import EXIT_BAD_CONFIGURATION, ConfigurationError
from webhook import pod_view
from webhook.annotations import INJECT
from webhook.evaluate import AdmissionResult, evaluate
from webhook.reasons import Reason, quoted
from webhook.settings import Settings, check, load
from webhook.value_types import CaBundle

EXIT_DENIED: Final = 1
EXIT_BAD_USAGE: Final = 2

# Where the pod lies in each kind that holds one.
_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_DOCUMENT: Final = re.compile(r"^---(?:[ \t].*)?$\n?", re.MULTILINE)


class _BadUsage(Exception):
    """The command cannot be carried out as it was given."""


@dataclass(frozen=True)
class _Judged:
    """One object of the stream and what becomes of it; no verdict where it holds no pod."""

    raw: Any
    name: str
    verdict: AdmissionResult | None
    injected: Any


def inject(arguments: argparse.Namespace) -> int:
    """Carry out the command; the exit code is the contract's."""
    try:
        documents = list(_documents(_text(arguments.file)))
        settings = _settings(arguments.config)
    except ConfigurationError as bad:
        for fault in bad.faults:
            print(f"error: {fault}", file=sys.stderr)  # noqa: T201 - a terminal is listening
        return EXIT_BAD_CONFIGURATION
    except _BadUsage as bad_usage:
        print(f"error: {bad_usage}", file=sys.stderr)  # noqa: T201
        return EXIT_BAD_USAGE
    opted_in = _opted_in([found for _, found in documents])
    denied = False
    for text, found in documents:
        judged = [_judged(raw, arguments.namespace, opted_in, settings) for raw in _items(found)]
        denied |= any(one.verdict is not None and not one.verdict.allowed for one in judged)
        sys.stdout.write(_explained(judged) if arguments.explain else _printed(text, found, judged))
    return EXIT_DENIED if denied else 0


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except OSError as error:
        raise _BadUsage(f"{file}: {(error.strerror or 'not readable').lower()}") from None
    except UnicodeDecodeError:
        raise _BadUsage(f"{file}: not UTF-8") from None


def _documents(text: str) -> Iterator[tuple[str, Any]]:
    """The stream's documents, each as it was written and as it was read."""
    for written in _DOCUMENT.split(text):
        try:
            found = yaml.safe_load(written)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or "cannot be read"
            raise _BadUsage(f"not YAML: {problem}") from None
        if found is not None:
            yield written, found


def _settings(config: str | None) -> Settings:
    if config is not None:
        return load(Path(config))
    print("note: no --config; image and addresses are placeholders", file=sys.stderr)  # noqa: T201
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


def _items(found: Any) -> list[Any]:
    if isinstance(found, dict) and found.get("kind") == "List":
        return list(found.get("items") or ())
    return [found]


def _opted_in(documents: Sequence[Any]) -> frozenset[str]:
    """Namespaces that the stream itself opts in."""
    names = set()
    for found in (item for document in documents for item in _items(document)):
        if isinstance(found, dict) and found.get("kind") == "Namespace":
            metadata = found.get("metadata") or {}
            if (metadata.get("labels") or {}).get(INJECT) == "enabled":
                names.add(str(metadata.get("name")))
    return frozenset(names)


def _judged(raw: Any, namespace: str, opted_in: frozenset[str], settings: Settings) -> _Judged:
    kind = str(raw.get("kind")) if isinstance(raw, dict) else ""
    if kind not in _TEMPLATES:
        return _Judged(raw, "", None, raw)
    metadata = raw.get("metadata") or {}
    namespace = str(metadata.get("namespace") or namespace)
    name = f"{kind} {namespace}/{metadata.get('name') or metadata.get('generateName') or ''}"
    path = _TEMPLATES[kind]
    try:
        pod = pod_view.read(_as_created(_within(raw, path), kind, metadata))
    except pod_view.Malformed as malformed:
        verdict = AdmissionResult("denied", Reason.MALFORMED, refusals=(str(malformed),))
        return _Judged(raw, name, verdict, raw)
    verdict = evaluate(pod, namespace, settings, namespace_opted_in=namespace in opted_in)
    prefix = "".join(f"/{part}" for part in path)
    operations = [
        operation | {"path": prefix + operation["path"]} for operation in verdict.operations
    ]
    return _Judged(raw, name, verdict, jsonpatch.apply_patch(raw, operations))


def _within(raw: Any, path: Sequence[str]) -> Any:
    for part in path:
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw


def _as_created(template: Any, kind: str, metadata: Mapping[str, Any]) -> Any:
    """The pod as its controller will create it, as far as decisions depend on that."""
    if kind == "Pod" or not isinstance(_within(template, ("metadata",)), dict):
        return template
    owner = {"kind": kind, "name": str(metadata.get("name", "")), "controller": True}
    return template | {"metadata": template["metadata"] | {"ownerReferences": [owner]}}


def _explained(judged: Sequence[_Judged]) -> str:
    return "".join(
        "---\n" + _dump(_explanation(one, one.verdict)) for one in judged if one.verdict is not None
    )


def _explanation(judged: _Judged, verdict: AdmissionResult) -> dict[str, Any]:
    told: dict[str, Any] = {
        "object": judged.name,
        "decision": verdict.decision,
        "reason": verdict.reason.value,
    }
    if verdict.config_hash:
        told["configHash"] = verdict.config_hash
    for field, entries in (("faults", verdict.refusals), ("warnings", verdict.warnings)):
        if entries:
            told[field] = list(entries)
    return told | {"patch": list(verdict.operations)}


def _printed(text: str, found: Any, judged: Sequence[_Judged]) -> str:
    """The document injected; as it was written where nothing of it changes; denied ones left out,
    so that what is piped on to `kubectl apply` never starts without its sidecar.
    """
    for one in judged:
        for fault in one.verdict.refusals if one.verdict else ():
            print(f"denied: {quoted(one.name)}: {fault}", file=sys.stderr)  # noqa: T201
        for warned in one.verdict.warnings if one.verdict else ():
            print(f"warning: {quoted(one.name)}: {warned}", file=sys.stderr)  # noqa: T201
    kept = [one.injected for one in judged if one.verdict is None or one.verdict.allowed]
    if kept == _items(found):
        return f"---\n{text.rstrip()}\n"
    if found.get("kind") == "List":
        return "---\n" + _dump(found | {"items": kept})
    return "".join("---\n" + _dump(one) for one in kept)


def _dump(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=100)
