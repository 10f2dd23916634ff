"""The postStart hook, as the kubelet runs it: beside a sidecar that starts."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from demo.pki import write_credential
from sidecar.wait_until_ready import DEFAULT_OPS_PORT, LISTENING_SECONDS, READY_SECONDS, probe, wait
from tests.sidecar.harness import SPIFFE_ID, Authorities, environment, fake_authserver
from tests.sidecar.processes import ended, running
from webhook.annotations import DEFAULT_OPS_PORT as PORT_OF_THE_WEBHOOK
from webhook.sidecar_spec import WAIT_UNTIL_READY

OTHER_SPIFFE_ID = "spiffe://example.org/ns/mcp-servers/mcpserver/other"


class Course:
    """Answers one after another, the last one for ever; a clock that each pause moves on."""

    def __init__(self, *answers: tuple[int, str] | None) -> None:
        self._answers, self.seconds, self.asked = list(answers), 0.0, 0

    def ask(self) -> tuple[int, str] | None:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def now(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.seconds += seconds

    def wait(self) -> str:
        return wait(self.ask, now=self.now, pause=self.pause)


NOT_READY, READY = (503, "not ready"), (200, "ok")


def test_it_returns_as_soon_as_the_sidecar_is_ready() -> None:
    course = Course(None, None, NOT_READY, READY)
    assert course.wait() == ""
    assert course.seconds < 0.1


def test_a_slow_node_has_more_time_than_a_sidecar_that_answers_and_is_not_ready() -> None:
    silent, unfit = Course(None), Course(NOT_READY)
    assert silent.wait() == "the sidecar is not ready: nobody answers"
    assert unfit.wait() == "the sidecar is not ready: not ready"
    assert silent.seconds == pytest.approx(LISTENING_SECONDS, abs=1)
    assert unfit.seconds == pytest.approx(READY_SECONDS, abs=1)
    assert LISTENING_SECONDS > READY_SECONDS


def test_the_time_of_an_unready_sidecar_begins_with_its_first_answer() -> None:
    late = Course(*[None] * 80, NOT_READY)
    assert late.wait() != ""
    begun = Course(*[None] * 80, READY)
    begun.wait()
    assert late.seconds == pytest.approx(begun.seconds + READY_SECONDS, abs=1)


def test_it_asks_often_at_first_and_ever_less_often_then() -> None:
    at_once, slow = Course(*[None] * 10, READY), Course(None)
    assert (at_once.wait(), at_once.seconds < 0.2) == ("", True)
    slow.wait()
    assert slow.asked < 200


async def test_it_returns_beside_a_real_sidecar(tmp_path: Path, authorities: Authorities) -> None:
    issued = authorities.workloads.issue_svid(SPIFFE_ID)
    write_credential(tmp_path / "credential", issued)
    async with (
        fake_authserver(tmp_path, authorities) as fake,
        running(environment(tmp_path, fake.url)) as sidecar,
    ):
        variables = {"TOKENWARD_OPS_PORT": str(sidecar.ops_port)}
        _, *hook = WAIT_UNTIL_READY
        process = await asyncio.create_subprocess_exec(sys.executable, *hook, env=variables)
        assert await process.wait() == 0


async def test_a_sidecar_that_ends_unready_says_why_in_its_last_lines(
    tmp_path: Path, authorities: Authorities
) -> None:
    """The kubelet ends it when the hook fails, and keeps the last lines of what exits with 1."""
    issued = authorities.workloads.issue_svid(OTHER_SPIFFE_ID)
    write_credential(tmp_path / "credential", issued)
    async with (
        fake_authserver(tmp_path, authorities) as fake,
        running(environment(tmp_path, fake.url)) as sidecar,
    ):
        assert await asyncio.to_thread(probe, sidecar.ops_port) == (503, "not ready")
        sidecar.process.send_signal(signal.SIGTERM)
        code, lines = await ended(sidecar.process)
        assert code == 1
        told = [line["event"] for line in [*sidecar.lines, *lines]]
        assert told[-1] == "start_failed"
        assert "credential_unusable" in told


def test_nobody_listening_is_no_answer() -> None:
    assert probe(1) is None


def test_without_the_variable_it_asks_the_default_port() -> None:
    assert DEFAULT_OPS_PORT == PORT_OF_THE_WEBHOOK
