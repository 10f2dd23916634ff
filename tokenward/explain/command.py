"""Finds a request's lines and tells them in the order of time."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tokenward.explain.log_lines import LogLine, UnreadableLog, lines_of, parsed
from tokenward.explain.meanings import is_decision, is_refusal, meaning_of, said
from tokenward.output import Output

EXIT_FAILED: Final = 1

_MAX_LINES: Final = 10_000
_MAX_NAMESPACES: Final = 10_000


@dataclass
class _Search:
    """What was found. `admitted` is the webhook's last decision for each namespace."""

    lines: list[LogLine] = field(default_factory=list)
    admitted: dict[str, LogLine] = field(default_factory=dict)
    seen: int = 0
    first: str = ""
    last: str = ""

    def look_at(self, text: str, request_id: str) -> None:
        if '"decided"' not in text and request_id not in text:
            self.seen += '"event"' in text
            return
        line = parsed(text)
        if line is None:
            return
        self.seen += 1
        if request_id in (line.get("request_id"), line.get("uid")):
            if len(self.lines) < _MAX_LINES:
                self.lines.append(line)
        elif line["event"] == "decided" and len(self.admitted) < _MAX_NAMESPACES:
            self.admitted[str(line.get("namespace"))] = line

    def in_order(self) -> list[LogLine]:
        return sorted(self.lines, key=lambda line: str(line["time"]))

    def admission(self) -> LogLine | None:
        """What the webhook last decided in the namespace of the server that asked."""
        for line in self.lines:
            parts = str(line.get("spiffe_id", "")).split("/")
            if "ns" in parts[:-1]:
                return self.admitted.get(parts[parts.index("ns") + 1])
        return None


def explain(parsed_arguments: argparse.Namespace) -> int:
    """0 where the request was found, 1 where it was not, or a file is not readable."""
    request_id, search = parsed_arguments.request_id, _Search()
    try:
        for text in lines_of(parsed_arguments.files):
            search.look_at(text, request_id)
    except UnreadableLog as unreadable:
        print(f"error: {unreadable}", file=sys.stderr)
        return EXIT_FAILED
    if not search.lines:
        print(
            f"error: no line of the {search.seen} read has request id {request_id!r}: add the logs"
            " of the sidecar, of every replica of the authserver, and of before a restart"
            " (`kubectl logs --previous`)",
            file=sys.stderr,
        )
        return EXIT_FAILED
    _tell(request_id, search, Output(parsed_arguments.output))
    return 0


def _tell(request_id: str, search: _Search, output: Output) -> None:
    lines, admission = search.in_order(), search.admission()
    decision = _decision(lines)
    missing = [
        process
        for process in ("sidecar", "authserver")
        if process not in {line["process"] for line in lines}
    ]
    members = {
        "request_id": request_id,
        "lines": [_members(line) for line in lines],
        "decision": None if decision is None else _members(decision),
        "admission": None if admission is None else _members(admission),
        "no_lines_of": missing,
    }
    output.report(members, _texts(request_id, lines, decision, admission, missing))


def _decision(lines: list[LogLine]) -> LogLine | None:
    """The last line that decided; of a denial that a sidecar passed on, the authserver's own."""
    decisions = [line for line in lines if is_decision(line)]
    audited = [line for line in decisions if line["source"] == "audit"]
    passed_on = bool(decisions) and decisions[-1]["process"] == "sidecar"
    if passed_on and audited and is_refusal(audited[-1]):
        return audited[-1]
    return decisions[-1] if decisions else None


def _members(line: LogLine) -> dict[str, Any]:
    meaning = meaning_of(line)
    return {
        "time": line["time"],
        "process": line["process"],
        "source": line["source"],
        "event": line["event"],
        "level": line.get("level"),
        "fields": said(line),
        "why": meaning.why or None,
        "remedy": meaning.remedy or None,
    }


def _texts(
    request_id: str,
    lines: list[LogLine],
    decision: LogLine | None,
    admission: LogLine | None,
    missing: list[str],
) -> Iterator[str]:
    if admission is not None:
        yield "the last pod of this server's namespace, at the webhook:"
        yield f"  {_line(admission)}"
    yield f"request {request_id}:"
    for line in lines:
        yield f"  {_line(line)}"
    if decision is not None:
        yield f"decided: {_verdict(decision)}"
        meaning = meaning_of(decision)
        if meaning.why:
            yield f"why: {meaning.why}"
        yield f"what to do: {meaning.remedy or 'nothing'}"
    for process in missing:
        yield f"no line of the {process}: it was not asked, or its log is not among these"


def _line(line: LogLine) -> str:
    fields = " ".join(f"{name}={value}" for name, value in said(line).items())
    return f"{line['time']}  {line['process']:10}  {line['source']} {line['event']}  {fields}"


def _verdict(line: LogLine) -> str:
    outcome = line.get("decision") or line.get("outcome") or line["event"]
    reason = line.get("reason") or line.get("error")
    return f"{outcome}, {reason}" if reason else str(outcome)
