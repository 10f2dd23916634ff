"""`tokenward who-can --certificates`: what the controller issued, beside what the authserver saw.

A certificate that the authserver accepted and that no controller issued is the trace of a stolen
authority, or of one that somebody else signs with.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tokenward.explain.log_lines import LogLine, UnreadableLog, lines_of, parsed
from tokenward.output import Output

EXIT_FAILED: Final = 1

_ISSUED: Final = ("certificate_issued", "certificate_signed")
_COLUMNS: Final = ("serial", "server", "holder", "ends", "uses", "last_use", "state")


@dataclass
class _Certificate:
    """`server` is `namespace/name` as the controller has it; times are RFC 3339."""

    serial: str
    server: str | None = None
    holder: str | None = None
    issued: str | None = None
    ends: str | None = None
    uses: int = 0
    first_use: str | None = None
    last_use: str | None = None
    used_as: set[str] = field(default_factory=set)

    @property
    def state(self) -> str:
        if self.issued is None:
            return "not_issued_here"
        if not self.uses:
            return "unused"
        return "used" if self.used_as == {self.server} else "used_as_another_server"

    def item(self) -> dict[str, Any]:
        return {
            "serial": self.serial,
            "server": self.server or next(iter(self.used_as), None),
            "holder": self.holder,
            "issued": self.issued,
            "ends": self.ends,
            "uses": self.uses,
            "first_use": self.first_use,
            "last_use": self.last_use,
            "state": self.state,
        }


def certificates(arguments: argparse.Namespace) -> int:
    """0 where every certificate in use was issued by the controller for that server, else 1."""
    try:
        found = _read(lines_of(arguments.certificates))
    except UnreadableLog as unreadable:
        print(f"error: {unreadable}", file=sys.stderr)
        return EXIT_FAILED
    output = Output(arguments.output)
    asyncio.run(output.listing("certificates", _COLUMNS, _items(found)))
    strange = {"not_issued_here", "used_as_another_server"}
    return EXIT_FAILED if any(one.state in strange for one in found) else 0


def _read(texts: Iterable[str]) -> Sequence[_Certificate]:
    """In the order in which the certificates first appear."""
    found: dict[str, _Certificate] = {}
    for text in texts:
        if '"serial"' not in text and '"certificate_serial"' not in text:
            continue
        line = parsed(text)
        if line is None:
            continue
        if line["process"] == "controller" and line["event"] in _ISSUED:
            _add_issued(found, line)
        elif line["process"] == "authserver" and line["source"] == "audit":
            _add_use(found, line)
    return list(found.values())


def _add_issued(found: dict[str, _Certificate], line: LogLine) -> None:
    one = _of(found, line["serial"])
    one.issued, one.ends = str(line["time"]), line.get("ends")
    one.server, one.holder = line.get("server"), line.get("holder")


def _add_use(found: dict[str, _Certificate], line: LogLine) -> None:
    serial = line.get("certificate_serial")
    if not serial:
        return
    one, time = _of(found, serial), str(line["time"])
    one.uses += 1
    one.first_use = min(one.first_use or time, time)
    one.last_use = max(one.last_use or time, time)
    one.used_as.add(_server_of(str(line.get("spiffe_id", ""))))


def _server_of(spiffe_id: str) -> str:
    """`namespace/name` of spiffe://TRUST-DOMAIN/ns/NAMESPACE/mcpserver/NAME, else as it is."""
    parts = spiffe_id.removeprefix("spiffe://").split("/")
    return f"{parts[2]}/{parts[4]}" if len(parts) == 5 else spiffe_id


def _of(found: dict[str, _Certificate], serial: object) -> _Certificate:
    return found.setdefault(str(serial), _Certificate(str(serial)))


async def _items(found: Iterable[_Certificate]) -> AsyncIterator[dict[str, Any]]:
    for one in found:
        yield one.item()
