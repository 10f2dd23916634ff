"""What lines of our logs mean, and what to do about them."""

import json
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from tokenward.explain.log_lines import LogLine

# Events of the audit trail without an action are of a release too.
_RELEASES: Final = ("release", None)
_NOTHING: Final = ("", "Nothing.", "None.")


class Meaning(NamedTuple):
    """Texts for a person; empty where there is nothing to say."""

    why: str = ""
    remedy: str = ""


@cache
def _meanings() -> dict[str, dict[str, list[str]]]:
    text = (resources.files(__package__) / "meanings.json").read_text("utf-8")
    found: dict[str, dict[str, list[str]]] = json.loads(text)
    return found


def meaning_of(line: LogLine) -> Meaning:
    """By the reason of a refusal, the error of the sidecar's answer, or the event itself."""
    reason, error = str(line.get("reason", "")), str(line.get("error", ""))
    if refused := _refusal(line, reason):
        return refused
    if line["process"] == "sidecar" and line["event"] == "refused":
        errors = _meanings()["errors"]
        of_any_door = errors.get(error, ["", ""])
        return _meaning(errors.get(f"{line['source']} {error}", of_any_door))
    key = f"{line['process']} {line['source']} {line['event']}"
    general = f"* {line['source']} {line['event']}"
    events = _meanings()["events"]
    return _meaning(["", events.get(key, events.get(general, [""]))[0]])


def _refusal(line: LogLine, reason: str) -> Meaning | None:
    """At the internal listener a denial; else a refusal, some of which share a meaning."""
    if line["source"] == "audit" and line.get("action") in _RELEASES:
        denial = _meanings()["denials"].get(reason)
        return None if denial is None else _meaning(denial)
    if line["source"] == "public" or (line["source"] == "audit" and is_refusal(line)):
        refusals = _meanings()["refusals"]
        shared = (name for name in refusals if name.endswith("*") and reason.startswith(name[:-1]))
        name = reason if reason in refusals else next(shared, None)
        return None if name is None else _meaning(refusals[name])
    return None


def remedy_of_condition(reason: str) -> str:
    """What to do about a condition with this reason; empty where it is not one of ours."""
    return _meaning(_meanings()["conditions"].get(reason, ["", ""])).remedy


def is_decision(line: LogLine) -> bool:
    """Whether the line says what was decided, in any of the processes."""
    return line["source"] == "audit" or line["event"] in ("refused", "decided", "exchange_denied")


def is_refusal(line: LogLine) -> bool:
    """Whether an event of the audit trail says that something was refused, or failed."""
    return line.get("decision") == "deny" or line.get("outcome") in ("refused", "failed")


def _meaning(texts: list[str]) -> Meaning:
    why, remedy = texts
    return Meaning(why, "" if remedy in _NOTHING else remedy)


def said(line: LogLine) -> dict[str, Any]:
    """What a line says beside time, process and event."""
    left_out = {"time", "level", "process", "event", "source", "request_id"}
    return {name: value for name, value in line.items() if name not in left_out}
