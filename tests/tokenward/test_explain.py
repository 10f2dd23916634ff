"""One request id, followed through the logs that real processes wrote."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from authserver.internal.denial_reasons import DenialReason
from chassis import logs
from demo.pki import write_credential
from sidecar.app import build
from sidecar.settings import read_settings
from tests.sidecar.harness import listening
from tests.support.deployment import NOTES, Deployment, deployed
from tests.support.workloads import NOTES_SERVER
from tests.tokenward import meanings
from tests.tokenward.running import run, spawn
from tokenward.explain.meanings import meaning_of

ID = "req-of-a-user-1"


def written(capfd: pytest.CaptureFixture[str], log: Path) -> Path:
    """What this process logged, as `kubectl logs --prefix` shows it."""
    lines = capfd.readouterr().err.splitlines()
    log.write_text("\n".join(f"[pod/x/tokenward] {line}" for line in lines) + "\n")
    return log


async def ask(world: Deployment, jwt: str) -> int:
    """One call of a real sidecar beside a real authserver, with the request id of a user."""
    credential = world.folder / "sidecar"
    if not credential.exists():
        credential.mkdir()
        write_credential(credential, world.svid(NOTES_SERVER))
        (world.folder / "ca.pem").write_bytes(world.server_ca.certificate_pem)
    settings = read_settings(
        {
            "TOKENWARD_AUTHSERVER_URL": world.internal_url,
            "TOKENWARD_AUTHSERVER_CA_FILE": str(world.folder / "ca.pem"),
            "TOKENWARD_CREDENTIAL_DIR": str(credential),
            "TOKENWARD_SPIFFE_ID": "spiffe://example.org/ns/mcp-servers/mcpserver/notes",
            "TOKENWARD_RESOURCE": NOTES,
            "TOKENWARD_ISSUER": world.issuer,
            "TOKENWARD_PORT": "0",
            "TOKENWARD_OPS_PORT": "0",
        }
    )
    headers = {
        "Authorization": f"Bearer {jwt}", "X-Tokenward": "1", "X-Request-Id": ID,
    }  # fmt: skip
    sidecar = build(settings)
    async with listening(sidecar) as port, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{port}/v1/token"
        async with http.post(url, json={}, headers=headers) as answer:
            return answer.status


@contextmanager
def json_logs() -> Iterator[None]:
    """This process logs as a process of ours does."""
    before = logging.root.handlers[:], logging.root.level
    logs.configure("authserver")
    yield
    logging.root.handlers[:], logging.root.level = before


async def test_a_refused_user_is_explained_from_what_the_user_sees(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        await world.call(
            "POST", "/oauth/revoke",
            data={"client_id": alice.client_id, "token": alice.refresh_token},
        )  # fmt: skip
        with json_logs():
            assert await ask(world, alice.access_token) == 401
    file = written(capfd, tmp_path / "all.log")
    with_noise = file.read_text() + 'no json {"event": \n{"event": "x"}\n\n'
    file.write_text(with_noise)
    ran = await run("explain", ID, file)
    assert ran.code == 0, ran
    assert "no_such_session_of_this_token" in ran.out
    found = (await run("explain", ID, file, "--output", "json")).json
    sources = [(line["source"], line["event"]) for line in found["lines"]]
    assert ("audit", "audit") in sources
    assert ("local_api", "refused") in sources
    [audit] = [line for line in found["lines"] if line["source"] == "audit"]
    assert audit["fields"]["reason"] == "no_such_session_of_this_token"
    assert audit["why"].startswith("The session was ended")
    assert audit["remedy"].startswith("None if the user signed out")
    assert alice.access_token not in ran.out


async def test_lines_are_told_in_the_order_of_time_from_several_files(tmp_path: Path) -> None:
    def line(second: int, process: str, source: str, event: str, **fields: Any) -> str:
        time = f"2026-11-29T00:00:{second:02d}.000+00:00"
        members = {"time": time, "process": process, "source": source, "event": event}
        return json.dumps(members | fields | {"request_id": ID}) + "\n"

    spiffe_id = "spiffe://example.org/ns/team-a/mcpserver/notes"
    (tmp_path / "sidecar.log").write_text(
        line(2, "sidecar", "local_api", "refused", error="reauthentication_required")
    )
    (tmp_path / "authserver.log").write_text(
        line(1, "authserver", "audit", "audit", decision="deny", reason="user_blocked",
             spiffe_id=spiffe_id)
    )  # fmt: skip
    webhook = {
        "time": "2026-11-28T00:00:00.000+00:00", "process": "webhook", "source": "admission",
        "event": "decided", "decision": "injected", "namespace": "team-a", "pod": "notes-1",
    }  # fmt: skip
    (tmp_path / "webhook.log").write_text(json.dumps(webhook) + "\n")
    files = [tmp_path / name for name in ("sidecar.log", "authserver.log", "webhook.log")]
    found = (await run("explain", ID, *files, "--output", "json")).json
    assert [line["process"] for line in found["lines"]] == ["authserver", "sidecar"]
    assert found["admission"]["fields"]["pod"] == "notes-1"
    assert found["no_lines_of"] == []
    assert found["decision"]["fields"]["reason"] == "user_blocked"
    told = (await run("explain", ID, *files)).out
    assert told.index("user_blocked") < told.index("reauthentication_required")
    assert "what to do: " in told


def written_by(process: str, source: str, event: str, **fields: str) -> str:
    members = {"time": "t", "process": process, "source": source, "event": event}
    return json.dumps(members | fields | {"request_id": ID}) + "\n"


@pytest.mark.parametrize(
    ("audited", "decided", "why"),
    [
        ({"outcome": "refused", "decision": "deny", "reason": "user_blocked"}, "deny", "operator"),
        # Released, and then refused by the sidecar itself.
        ({"outcome": "success", "decision": "release"}, "refused", "host, method, path"),
    ],
)
async def test_a_denial_that_a_sidecar_passed_on_is_explained_by_who_denied(
    tmp_path: Path, audited: dict[str, str], decided: str, why: str
) -> None:
    refused = {"error": "destination_not_allowed", "reason": "path"}
    lines = (
        written_by("authserver", "audit", "audit", **audited),
        written_by("sidecar", "attach", "refused", **refused),
    )
    (tmp_path / "log").write_text("".join(lines))
    told = (await run("explain", ID, tmp_path / "log")).out.splitlines()
    assert next(line for line in told if line.startswith("decided: ")).split()[1][:-1] == decided
    assert why in next(line for line in told if line.startswith("why: "))


async def test_the_gateway_says_something_else_of_the_same_error(tmp_path: Path) -> None:
    line = written_by("sidecar", "gateway", "refused", error="bad_gateway", reason="not_listening")
    (tmp_path / "log").write_text(line)
    told = (await run("explain", ID, tmp_path / "log")).out
    assert "why: the server does not listen" in told


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("connect_link_refused", "The connect_url is cut off, over, used already"),
        ("upstream_callback_server_error", "A sign-in at an upstream failed."),
        ("upstream_declined", "The person declined at the upstream."),
        # The same word at the internal listener is about a sidecar.
        ("no_grant_type", "grant_type is missing."),
    ],
)
async def test_what_a_browser_or_a_client_was_refused_is_explained(
    tmp_path: Path, reason: str, why: str
) -> None:
    line = written_by("authserver", "public", "refused", reason=reason, error="invalid_request")
    (tmp_path / "log").write_text(line)
    told = (await run("explain", ID, tmp_path / "log")).out
    assert f"decided: refused, {reason}\nwhy: {why}" in told
    assert "Use the sidecar" not in told


async def test_a_page_shows_the_id_by_which_its_reason_is_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with deployed(tmp_path) as world:
        capfd.readouterr()
        with json_logs():
            page = await world.call("GET", f"{world.issuer}/connect/cut-off")
    shown = page.headers["X-Request-Id"]
    assert f"Request <code>{shown}</code>" in page.text
    ran = await run("explain", shown, written(capfd, tmp_path / "all.log"))
    assert "why: The connect_url is cut off" in ran.out


def test_what_an_error_means_stands_on_its_own() -> None:
    """A text that leans on the row above it says nothing in a terminal."""
    for why, remedy in meanings.errors().values():
        assert not any(text.startswith("the same") for text in (why, remedy))


async def test_the_webhooks_decision_is_found_by_the_uid_of_its_review(tmp_path: Path) -> None:
    line = {
        "time": "t", "process": "webhook", "source": "admission", "event": "decided",
        "decision": "denied", "reason": "host_network", "uid": "0f0f-uid",
    }  # fmt: skip
    (tmp_path / "log").write_text(json.dumps(line))
    told = await run("explain", "0f0f-uid", tmp_path / "log")
    assert "decided: denied, host_network" in told.out


async def test_an_id_that_nobody_logged_says_which_logs_are_missing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"event": "x"}\n')
    ran = await run("explain", "nobody", tmp_path / "log")
    assert (ran.code, ran.out) == (1, "")
    assert "no line of the 1 read has request id 'nobody'" in ran.err
    ran = await run("explain", "nobody", tmp_path / "none")
    assert "no such file" in ran.err


async def test_standard_input_is_a_log_too() -> None:
    line = {"time": "t", "process": "sidecar", "source": "local_api", "event": "refused",
            "error": "rate_limited", "request_id": ID}  # fmt: skip
    ran = await spawn("explain", ID, fed=json.dumps(line).encode())
    assert ran.code == 0
    assert "rate_limited" in ran.out
    assert "no line of the authserver" in ran.out


async def test_a_log_cannot_move_the_cursor(tmp_path: Path) -> None:
    line = {"time": "t", "process": "sidecar", "source": "s", "event": "e\x1b[2J", "request_id": ID}
    (tmp_path / "log").write_text(json.dumps(line))
    assert "\x1b" not in (await run("explain", ID, tmp_path / "log")).out


@pytest.mark.parametrize("reason", sorted(DenialReason))
def test_every_reason_for_a_denial_has_a_meaning(reason: str) -> None:
    line = {"source": "audit", "process": "authserver", "event": "audit", "reason": reason}
    assert meaning_of(line).why


def test_the_meanings_are_those_of_the_reference_pages() -> None:
    """After a change of the pages run `python -m tests.tokenward.meanings`."""
    assert meanings.FILE.read_text("utf-8") == meanings.render()
    assert len(meanings.errors()) >= 9
