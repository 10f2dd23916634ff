"""The reference pages of denials, metrics and log events say what the code does, and no more."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

import authserver.metrics
import authserver.oauth.errors
import controller.metrics
import sidecar.metrics
import webhook.listener
from authserver.audit import Action
from authserver.internal.denial_reasons import DenialReason
from chassis.metric_families import Collector

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs/reference"
PROCESSES = ("authserver", "sidecar", "webhook", "controller")
_METHODS = {"debug", "info", "warning", "error", "failure", "write_or_raise", "say"}
_REFUSALS = {"InvalidGrant", "TemporarilyUnavailable", "GrantRevoked", "BadToken", "_mark_dead"}


def rows(page: str, section: str | None = None) -> list[list[str]]:
    """The rows of a page's tables, as cells without their back-ticks; of one section, if named."""
    text = (REFERENCE / page).read_text()
    if section is not None:
        text = re.split(r"^## ", text.split(f"\n## {section}\n")[1], flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def named(cell: str) -> str:
    return cell.strip(" `")


def sources(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


# Denials.


def test_every_reason_for_a_denial_is_explained_once() -> None:
    table = rows("denials.md")
    assert sorted(named(row[0]) for row in table) == sorted(DenialReason)
    for row in table:
        assert len(row) == 4
        assert all(row)
        assert row[2] in ("operator", "owner")


def test_the_internal_listener_refuses_with_listed_reasons_only() -> None:
    """A reason is a member of the list there, never a text of its own."""
    texts = [
        f"{file}:{call.lineno}"
        for file, tree in sources("authserver/internal")
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id[0].isupper()
        and call.func.id not in ("Log", "ContextVar", "Literal")
        and call.args
        and isinstance(call.args[0], ast.Constant | ast.JoinedStr)
    ]
    assert texts == []


@pytest.mark.parametrize(
    ("packages", "prefix"),
    [(("authserver/connections", "authserver/upstream"), ""), (("authserver/tokens",), "jwt_")],
)
def test_reasons_that_come_from_deeper_down_are_listed_too(
    packages: tuple[str, ...], prefix: str
) -> None:
    elsewhere = {"session_health.py"}  # asked by the token endpoint, never by the listener
    reasons = {
        f"{prefix}{argument.value}"
        for file, tree in sources(*packages)
        if Path(file).name not in elsewhere
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and (getattr(call.func, "id", None) or getattr(call.func, "attr", None)) in _REFUSALS
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    assert len(reasons) > 4
    assert reasons <= set(DenialReason)


# Refusals of the public listener.

_PUBLIC = ("account", "clients", "connections", "endpoints", "public", "sign_in")
_ASKED_BY_THE_PUBLIC = {"session_health.py", "registration_binding.py"}
_REASONED = {
    "UserFacingError",
    "RateLimit",
    "SharedRateLimit",
    "_refused",
    *(one for one in vars(authserver.oauth.errors) if one[0].isupper()),
}


def texts_of(argument: ast.expr) -> set[str]:
    """The reasons that an argument means; one that is completed later ends in a star."""
    match argument:
        case ast.Constant(value=str() as text):
            return {text}
        case ast.IfExp():
            return texts_of(argument.body) | texts_of(argument.orelse)
        case ast.JoinedStr(values=[ast.Constant(value=str() as text), *_]):
            return {f"{text}*"}
    return set()


def test_every_reason_for_a_refusal_at_the_public_listener_is_explained_once() -> None:
    reasons = {"upstream_*"}  # those of an upstream's answer, with a prefix
    for file, tree in sources("authserver"):
        path = Path(file)
        if path.parent.name == "connections" and path.name not in _ASKED_BY_THE_PUBLIC:
            continue
        if path.parent.name not in (*_PUBLIC, "authserver"):
            continue
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            if getattr(call.func, "id", None) in _REASONED:
                reasons |= texts_of(call.args[0])
    table = rows("refusals.md")
    assert sorted(named(row[0]) for row in table) == sorted(reasons)
    for row in table:
        assert len(row) == 3
        assert all(row)


# Metrics.


def collectors(process: str) -> list[Collector]:
    if process == "sidecar":
        return [sidecar.metrics.Metrics()]
    found = CollectorRegistry()
    modules = {"authserver": authserver.metrics, "controller": controller.metrics}
    metrics = getattr(modules.get(process, webhook.listener), "Metrics")  # noqa: B009 - by name
    metrics(found)
    return [*found._collector_to_names]


@pytest.mark.parametrize("process", PROCESSES)
def test_every_metric_of_a_process_is_described_with_its_type_and_labels(process: str) -> None:
    registered = {}
    for collector in collectors(process):
        labels = getattr(collector, "_labelnames", None)
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            of_samples = {label for sample in family.samples for label in sample.labels} - {"le"}
            registered[name] = (family.type, set(of_samples if labels is None else labels))
    described = {
        named(name): (kind, set(re.findall(r"`(\w+)`:", labels)))
        for name, kind, labels, meaning in rows("metrics.md", process)
        if meaning.strip()
    }
    assert described == registered


# Log events.


def events(tree: ast.Module) -> Iterator[tuple[str, str, str, set[str]]]:
    """(source, event, level, fields) of each line that a module may log."""
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    logs = {
        target.id: node.value.args[0].value
        for node in assigned
        for target in node.targets
        if isinstance(target, ast.Name)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).split(".")[-1] == "Log"
        and isinstance(node.value.args[0], ast.Constant)
    }
    aliases = {
        target.id: logs[name]
        for node in assigned
        for target in node.targets
        for name in logs
        if isinstance(target, ast.Name) and re.search(rf"\b{name}\.\w+\b", ast.unparse(node.value))
        and not isinstance(node.value, ast.Call)
    }  # fmt: skip
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        method = ast.unparse(call.func)
        log, _, verb = method.partition(".")
        source = logs.get(log) if verb in _METHODS else aliases.get(method)
        constants = [argument for argument in call.args if isinstance(argument, ast.Constant)]
        if source is None or not constants:
            continue
        fields = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        yield str(source), str(constants[0].value), verb or "say", fields - {"request_id"}


@pytest.mark.parametrize(
    ("section", "packages"),
    [("All processes", ("chassis",)), *((process, (process,)) for process in PROCESSES)],
)
def test_every_log_event_is_described_with_its_level_and_fields(
    section: str, packages: tuple[str, ...]
) -> None:
    logged: dict[tuple[str, str], set[str]] = {}
    levels: dict[tuple[str, str], set[str]] = {}
    for _, tree in sources(*packages):
        for source, event, verb, fields in events(tree):
            logged.setdefault((source, event), set()).update(fields)
            levels.setdefault((source, event), set()).add(verb)
    table = [row for row in rows("log-events.md", section) if len(row) == 5]
    described = {(named(row[0]), named(row[1])): row for row in table}
    assert set(described) == set(logged)
    assert len(described) == len(table)
    for key, (_, _, level, fields_cell, remedy) in described.items():
        verbs = {verb.replace("failure", "error") for verb in levels[key]}
        assert remedy
        if not verbs & {"write_or_raise", "say"}:  # their level is decided at the call
            assert set(level.split(", ")) == verbs, key
        if key != ("audit", "audit"):
            assert set(re.findall(r"`(\w+)`", fields_cell)) == logged[key], key


def test_every_action_of_the_audit_trail_is_described() -> None:
    described = [named(row[0]) for row in rows("log-events.md") if len(row) == 3]
    assert sorted(described) == sorted(Action)
