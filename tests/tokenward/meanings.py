"""`python -m tests.tokenward.meanings`: makes `tokenward/explain/meanings.json` of the docs."""

import json
import re
from pathlib import Path
from typing import Any

from tests.test_reference_pages import PROCESSES, named, rows

FILE = Path(__file__).resolve().parents[2] / "tokenward/explain/meanings.json"
_ERROR = re.compile(
    r"^\| \d{3} \| (`\w+`(?:, `\w+`)*) \|(?: `\w+` \|)? ([^|`]+.*) \|$", re.MULTILINE
)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


def plain(cell: str) -> str:
    """A cell as a terminal shows it: without links and back-ticks."""
    return _LINK.sub(r"\1", cell).replace("`", "").strip()


def meanings() -> dict[str, Any]:
    denials = {named(row[0]): [plain(row[1]), plain(row[3])] for row in rows("denials.md")}
    events = {}
    for section in ("All processes", *PROCESSES):
        process = "*" if section == "All processes" else section
        for row in rows("log-events.md", section):
            if len(row) == 5:
                events[f"{process} {named(row[0])} {named(row[1])}"] = [plain(row[4])]
    conditions = {named(row[0]): [plain(row[2]), plain(row[3])] for row in rows("conditions.md")}
    refusals = {named(row[0]): [plain(row[1]), plain(row[2])] for row in rows("refusals.md")}
    return {
        "conditions": conditions,
        "denials": denials,
        "errors": errors(),
        "events": events,
        "refusals": refusals,
    }


def errors() -> dict[str, list[str]]:
    """What the errors of the sidecar's answers mean, and what to do.

    Those of the gateway, to whose callers other words are due, have its name before them.
    """
    found: dict[str, list[str]] = {}
    for name, door in (("sidecar-api.md", ""), ("gateway.md", "gateway ")):
        page = (FILE.parents[2] / "docs/reference" / name).read_text("utf-8")
        for errors_of_row, words in _ERROR.findall(page):
            meaning, _, remedy = plain(words).partition(": ")
            for error in re.findall(r"\w+", errors_of_row):
                found.setdefault(f"{door}{error}", [meaning, remedy])
    return found


def render() -> str:
    return json.dumps(meanings(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), "utf-8")
