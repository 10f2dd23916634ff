"""`who-can --certificates` finds certificates that were used and that no controller issued."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from chassis import logs
from controller.api.kinds import SECRET
from controller.api.objects import Key
from controller.issuing import rotation
from tests.controller.running import Site, running
from tests.tokenward.page import first_cells
from tests.tokenward.running import run

GITHUB = "spiffe://example.org/ns/mcp-servers/mcpserver/github"
NOTES = "spiffe://example.org/ns/mcp-servers/mcpserver/notes"


def issued(serial: str, server: str, holder: str, event: str = "certificate_issued") -> str:
    return json.dumps(
        {
            "time": "2026-11-01T10:00:00Z", "level": "info", "process": "controller",
            "source": "controller", "event": event, "serial": serial, "server": server,
            "holder": holder, "ends": "2026-11-02T10:00:00Z",
        }
    )  # fmt: skip


def used(serial: str, spiffe_id: str, time: str) -> str:
    return json.dumps(
        {
            "time": time, "level": "info", "process": "authserver", "source": "audit",
            "event": "audit", "action": "release", "spiffe_id": spiffe_id,
            "certificate_serial": serial,
        }
    )  # fmt: skip


async def listed(folder: Path, *lines: str) -> tuple[int, dict[str, dict[str, Any]]]:
    log = folder / "some.log"
    log.write_text("".join(f"[pod/x/y] {line}\n" for line in lines))
    ran = await run("who-can", "--certificates", log, "--output", "json")
    assert ran.err == ""
    return ran.code, {one["serial"]: one for one in ran.json["certificates"]}


async def test_what_was_issued_and_used_is_in_order(tmp_path: Path) -> None:
    code, found = await listed(
        tmp_path,
        "Starting up",
        used("A1", GITHUB, "2026-11-01T11:00:00Z"),
        issued("A1", "mcp-servers/github", "Secret/mcp-servers/github-tokenward"),
        issued("B2", "mcp-servers/notes", "Pod/mcp-servers/notes-0", "certificate_signed"),
        used("A1", GITHUB, "2026-11-01T10:30:00Z"),
    )
    assert code == 0
    assert found["A1"] == {
        "serial": "A1", "server": "mcp-servers/github",
        "holder": "Secret/mcp-servers/github-tokenward",
        "issued": "2026-11-01T10:00:00Z", "ends": "2026-11-02T10:00:00Z", "uses": 2,
        "first_use": "2026-11-01T10:30:00Z", "last_use": "2026-11-01T11:00:00Z", "state": "used",
    }  # fmt: skip
    assert (found["B2"]["state"], found["B2"]["uses"]) == ("unused", 0)
    described = first_cells("tokenward who-can", "certificate member")
    assert set(re.findall(r"`(\w+)`", " ".join(described))) == set(found["A1"])


async def test_a_certificate_that_nobody_issued_is_found(tmp_path: Path) -> None:
    code, found = await listed(
        tmp_path,
        issued("A1", "mcp-servers/github", "Secret/mcp-servers/github-tokenward"),
        used("A1", GITHUB, "2026-11-01T10:30:00Z"),
        used("66", NOTES, "2026-11-01T10:30:00Z"),
    )
    assert code == 1
    assert found["66"]["state"] == "not_issued_here"
    assert found["66"]["server"] == "mcp-servers/notes"
    assert found["A1"]["state"] == "used"


async def test_one_use_as_another_server_is_found_among_many(tmp_path: Path) -> None:
    code, found = await listed(
        tmp_path,
        issued("A1", "mcp-servers/github", "Secret/mcp-servers/github-tokenward"),
        used("A1", GITHUB, "2026-11-01T10:30:00Z"),
        used("A1", NOTES, "2026-11-01T10:31:00Z"),
        used("A1", GITHUB, "2026-11-01T10:32:00Z"),
    )
    assert code == 1
    assert found["A1"]["state"] == "used_as_another_server"


async def test_a_use_before_the_line_of_the_controller_is_compared_too(tmp_path: Path) -> None:
    code, found = await listed(
        tmp_path,
        used("A1", NOTES, "2026-11-01T10:30:00Z"),
        used("A1", GITHUB, "2026-11-01T10:31:00Z"),
        issued("A1", "mcp-servers/github", "Secret/mcp-servers/github-tokenward"),
    )
    assert (code, found["A1"]["state"]) == (1, "used_as_another_server")


async def test_it_reads_what_a_controller_really_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, written = Site(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.configure("controller", "info")
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("CertificateReady", "True"))
        await site.quiet()
    monkeypatch.undo()
    code, found = await listed(tmp_path, *written.getvalue().splitlines())
    [one] = [one for one in found.values() if one["holder"]]
    leaf = x509.load_pem_x509_certificate(
        rotation.decoded(site.api.found(SECRET, Key("mcp-servers", "notes-tokenward")))["tls.crt"]
    )
    assert (code, one["state"], one["server"]) == (0, "unused", "mcp-servers/notes")
    assert one["serial"] == f"{leaf.serial_number:X}"
    assert one["holder"] == "Secret/mcp-servers/notes-tokenward"
    assert one["ends"] == f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"


async def test_a_log_that_is_not_there_and_a_selector_are_refused(tmp_path: Path) -> None:
    ran = await run("who-can", "--certificates", tmp_path / "absent")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    ran = await run("who-can", "--certificates", tmp_path / "absent", "--user", "alice")
    assert (ran.code, ran.out) == (2, "")
