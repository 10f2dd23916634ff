import fcntl
import os
import sys
from pathlib import Path

import pytest

from tests.cluster.control_plane.processes import Processes, ProcessFailed

_SLEEP = "import time; time.sleep(90)"

# Deaf to the signal; it and a child of its own hold one lock, which is free when both have ended.
_DEAF = f"""
import fcntl, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
subprocess.Popen([sys.executable, "-c", {_SLEEP!r}], pass_fds=[held.fileno()])
print("ready", flush=True)
{_SLEEP}
"""


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_everything_that_was_started_ends_with_the_block(tmp_path: Path) -> None:
    pids: dict[str, int] = {}

    def interrupted() -> None:
        with Processes(tmp_path) as processes:
            processes.start("one", _python(_SLEEP))
            processes.start("two", _python(_SLEEP))
            pids.update(processes.pids)
            assert all(_runs(pid) for pid in pids.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert set(pids) == {"one", "two"}
    assert not any(_runs(pid) for pid in pids.values())


def test_a_program_that_ignores_the_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    log, lock = tmp_path / "deaf.log", tmp_path / "lock"
    with Processes(tmp_path, stop_seconds=0.1) as processes:
        processes.start("deaf", [*_python(_DEAF), lock])
        processes.wait_until("deaf", lambda: "ready" in log.read_text("utf-8"))
    with lock.open() as free:
        fcntl.flock(free, fcntl.LOCK_EX)  # blocks for as long as one of them lives


def test_a_program_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("brief", _python("print('no such flag'); raise SystemExit(3)"))
        with pytest.raises(ProcessFailed, match=r"(?s)brief ended by itself with code 3.*no such"):
            processes.wait_until("brief", lambda: False)


def test_programs_get_no_configuration_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/else")
    monkeypatch.setenv("ETCD_NAME", "other")
    log = tmp_path / "environment.log"
    with Processes(tmp_path) as processes:
        processes.start(
            "environment", _python(f"import os; print(*os.environ, 'end', flush=True); {_SLEEP}")
        )
        processes.wait_until("environment", lambda: "end" in log.read_text("utf-8"))
    assert not {"KUBECONFIG", "ETCD_NAME"} & set(log.read_text("utf-8").split())
