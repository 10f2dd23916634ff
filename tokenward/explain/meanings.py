"""What lines of our logs mean, and what to do about them."""

import json
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from tokenward.explain.log_lines import LogLine

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
    """By the reason of a denial, the error of the sidecar's answer, or the event itself."""
    reason, error = str(line.get("reason", "")), str(line.get("error", ""))
    if line["source"] == "audit" and reason in _meanings()["denials"]:
        return _meaning(_meanings()["denials"][reason])
    if line["process"] == "sidecar" and line["event"] == "refused":
        errors = _meanings()["errors"]
        of_any_door = errors.get(error, ["", ""])
        return _meaning(errors.get(f"{line['source']} {error}", of_any_door))
    key = f"{line['process']} {line['source']} {line['event']}"
    general = f"* {line['source']} {line['event']}"
    events = _meanings()["events"]
    return _meaning(["", events.get(key, events.get(general, [""]))[0]])


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
