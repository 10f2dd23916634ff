"""The audit trail: whole at every log level, and where it cannot be written nothing is released."""

import errno
import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chassis import logs
from tests.support.deployment import Deployment, deployed
from tests.support.forged_tokens import claims_of
from tests.support.workloads import DENIED, NOTES_SERVER, TASKS_SERVER, form, line, verdict


class Sink(io.StringIO):
    """Standard error that fails when it is told to."""

    trouble: Exception | None = None

    def write(self, text: str) -> int:
        if self.trouble is not None:
            raise self.trouble
        return super().write(text)

    def audited(self) -> list[dict[str, Any]]:
        lines = [json.loads(text) for text in self.getvalue().splitlines()]
        return [found for found in lines if found["event"] == "audit"]


@contextmanager
def logging_to(sink: Any, level: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the process does with its standard error, and undoes."""
    root = logging.getLogger()
    handlers, before = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", sink)
    logs.configure("authserver", level)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(before)
        logging.getLogger("tokenward").setLevel(logging.NOTSET)
        logging.captureWarnings(False)
        monkeypatch.undo()


def counted(world: Deployment, name: str, **labels: str) -> float:
    found = world.server.registry.get_sample_value(f"tokenward_authserver_{name}_total", labels)
    return found or 0.0


TROUBLE: dict[str, Exception] = {
    "nobody reads": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "no space": OSError(errno.ENOSPC, "No space left on device"),
    "full for now": BlockingIOError(errno.EAGAIN, "would block"),
    "closed": ValueError("I/O operation on closed file"),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
async def test_a_release_that_cannot_be_recorded_does_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in("alice")).access_token
        sink = Sink()
        with logging_to(sink, "info", monkeypatch):
            sink.trouble = trouble
            answer = await sidecar.exchange(jwt)
            assert verdict(answer) == (503, {"error": "temporarily_unavailable"})
            assert int(answer.headers["Retry-After"]) > 0
            assert counted(world, "releases", upstream="acme", result="stored") == 0
            assert counted(world, "denials", reason="audit_lost") == 1
            sink.trouble = None
            assert (await sidecar.exchange(jwt)).status == 200
        assert [event["decision"] for event in sink.audited()] == ["release"]


async def test_without_a_standard_error_nothing_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in("alice")).access_token
        with logging_to(None, "info", monkeypatch):
            answer = await world.exchange(NOTES_SERVER, jwt)
        assert verdict(answer) == (503, {"error": "temporarily_unavailable"})


async def test_a_denial_that_cannot_be_recorded_is_a_denial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in("alice")).access_token
        sink = Sink()
        sink.trouble = TROUBLE["nobody reads"]
        with logging_to(sink, "info", monkeypatch):
            assert verdict(await world.exchange(TASKS_SERVER, jwt)) == DENIED
        assert counted(world, "denials", reason="caller_is_not_the_owner") == 1


@pytest.mark.parametrize("level", logs.LEVELS)
async def test_releases_and_denials_are_recorded_at_every_log_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in("alice")).access_token
        sink = Sink()
        with logging_to(sink, level, monkeypatch):
            assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
            assert verdict(await world.exchange(TASKS_SERVER, jwt)) == DENIED
        events = [(event["level"], event["decision"]) for event in sink.audited()]
        assert events == [("info", "release"), ("warning", "deny")]


OURS = ("token_grant", "release", "session_end", "revocation")


async def test_one_user_has_one_pseudonym_in_all_events_and_no_identifier_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployed(tmp_path) as world:
        sink = Sink()
        with logging_to(sink, "info", monkeypatch):
            alice, bob = [await world.signed_in(user) for user in ("alice", "bob")]
            again = await world.refresh(alice.client_id, alice.refresh_token)
            jwt = again.json()["access_token"]
            assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
            assert verdict(await world.exchange(TASKS_SERVER, jwt)) == DENIED
            fields = {"token": jwt, "client_id": alice.client_id}
            assert (await world.call("POST", "/oauth/revoke", data=fields)).status == 200
            gone = await world.refresh(alice.client_id, again.json()["refresh_token"])
            assert gone.status == 400
        events = sink.audited()
        of_alice = [event for event in events if event.get("client") == alice.client_id]
        summary = [(e["action"], e["outcome"], e.get("reason", "")) for e in of_alice]
        assert [row for row in summary if row[0] in OURS] == [
            ("token_grant", "success", "authorization_code"),
            ("token_grant", "success", "refresh_token"),
            ("release", "success", ""),
            ("release", "refused", "caller_is_not_the_owner"),
            ("session_end", "success", "revoked"),
            ("revocation", "success", ""),
        ]
        named = [event for event in of_alice if "user" in event and "session" in event]
        assert {len({event[field] for event in named}) for field in ("user", "session")} == {1}
        of_bob = [event for event in events if event.get("client") == bob.client_id]
        # Until the upstream has named the user, an event of the sign-in has none.
        users_of_bob = {event["user"] for event in of_bob if "user" in event}
        assert len(users_of_bob) == 1
        assert not users_of_bob & {event["user"] for event in named}
        claims = claims_of(jwt)
        for secret in (claims["sub"], claims["tsid"], claims["jti"], jwt, alice.refresh_token):
            assert secret not in sink.getvalue()


async def test_the_sidecars_request_id_is_in_the_event_and_in_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in("alice")).access_token
        sink = Sink()
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        sent = [
            {"X-Request-Id": "sidecar-call-1"},
            {"traceparent": trace},
            {"X-Request-Id": 'forged" id'},
            {"X-Request-Id": "x" * 65},
        ]
        with logging_to(sink, "info", monkeypatch):
            answers = [await sidecar.send(form(jwt), headers=headers) for headers in sent]
        ids = [answer.headers["X-Request-Id"] for answer in answers]
        assert ids[:2] == ["sidecar-call-1", trace.split("-")[1]]
        assert [len(made) for made in ids[2:]] == [16, 16]
        assert [event["request_id"] for event in sink.audited()] == ids
