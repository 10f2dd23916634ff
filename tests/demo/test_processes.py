"""The demo's processes: what fails is named, and nothing is ever left running."""

import os
from pathlib import Path

import aiohttp
import pytest

from demo.layout import HOST, plan
from demo.processes import Processes, ProcessFailed

CHILD = "tests.demo.child"


@pytest.fixture
def port(tmp_path: Path) -> int:
    return plan(tmp_path).page_port


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_runs_inside_the_block_and_is_gone_after_it(
    tmp_path: Path, port: int
) -> None:
    async with Processes(tmp_path) as processes:
        await processes.start("calm", CHILD, "calm", str(port))
        await processes.ready("calm", f"http://{HOST}:{port}")
        [pid] = processes.pids
        assert runs(pid)

    assert not runs(pid)
    assert processes.problems == []


async def test_nothing_is_left_running_when_the_block_fails(tmp_path: Path, port: int) -> None:
    processes = Processes(tmp_path)

    async def fail() -> None:
        async with processes:
            await processes.start("calm", CHILD, "calm", str(port))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not runs(processes.pids[0])


async def test_a_process_that_dies_is_named_with_its_last_words(tmp_path: Path, port: int) -> None:
    async with Processes(tmp_path) as processes:
        await processes.start("broken", CHILD, "broken", str(port))
        with pytest.raises(ProcessFailed, match="broken ended by itself with code 1"):
            await processes.ready("broken", f"http://{HOST}:{port}")

    assert processes.problems == ["broken ended by itself with code 1"]
    assert "no such table: widgets" in processes.last_words()[0]


async def test_the_end_of_any_process_is_noticed(tmp_path: Path, port: int) -> None:
    async with Processes(tmp_path) as processes:
        await processes.start("calm", CHILD, "calm", str(port))
        await processes.start("broken", CHILD, "broken", str(port))
        with pytest.raises(ProcessFailed, match="broken"):
            await processes.first_failure()


async def test_a_process_that_ignores_sigterm_is_killed_and_reported(
    tmp_path: Path, port: int
) -> None:
    async with Processes(tmp_path, stop_seconds=0.2) as processes:
        await processes.start("stubborn", CHILD, "stubborn", str(port))
        await processes.ready("stubborn", f"http://{HOST}:{port}")

    assert not runs(processes.pids[0])
    assert len(processes.problems) == 1
    assert processes.problems[0].startswith("stubborn ignored SIGTERM")


async def test_a_process_gets_no_variable_it_was_not_given(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    async with Processes(tmp_path) as processes:
        await processes.start("calm", CHILD, "calm", str(port), environment={"TOKENWARD_URL": "x"})
        await processes.ready("calm", f"http://{HOST}:{port}")
        async with aiohttp.ClientSession() as http, http.get(f"http://{HOST}:{port}") as answer:
            environment = await answer.json(content_type=None)

    # The C locale is coerced by the interpreter itself (PEP 538).
    assert set(environment) - {"LC_CTYPE"} <= {"PATH", "LD_LIBRARY_PATH", "TOKENWARD_URL"}
    assert environment["TOKENWARD_URL"] == "x"
