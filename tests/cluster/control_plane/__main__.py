"""`python -m tests.cluster.control_plane`: a control plane until Ctrl-C, or for one command.

With a command after `--`, that command runs with KUBECONFIG set, and its exit code is ours.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Final

from tests.cluster.control_plane.control_plane import ControlPlane, running
from tests.cluster.control_plane.processes import ProcessFailed
from tests.cluster.control_plane.programs import (
    ETCD,
    KUBERNETES,
    CannotBuild,
    build_all,
    cache_folder,
)

EXIT_BROKEN: Final = 1
EXIT_INTERRUPTED: Final = 130

_LOOK_SECONDS: Final = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.control_plane")
    parser.add_argument("command", nargs="*", help="run this with KUBECONFIG set, then end")
    command: list[str] = parser.parse_args().command
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        sys.exit(_run(command))
    except KeyboardInterrupt:
        print("\nEverything has been stopped.")
        sys.exit(EXIT_INTERRUPTED if command else 0)
    except (CannotBuild, ProcessFailed) as problem:
        print(problem, file=sys.stderr)
        sys.exit(EXIT_BROKEN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Every signal ends us as Ctrl-C does, so that what we started ends too."""
    raise KeyboardInterrupt


def _run(command: list[str]) -> int:
    programs = build_all(cache_folder(os.environ))  # noqa: TID251 - XDG_CACHE_HOME
    with tempfile.TemporaryDirectory(prefix="tokenward-cluster-") as folder:
        begun = monotonic()
        with running(programs, Path(folder)) as plane:
            seconds = monotonic() - begun
            print(f"Kubernetes {KUBERNETES.version} on etcd {ETCD.version} is up, {seconds:.1f} s")
            return _with_it(command, plane) if command else _stay(plane, programs)


def _stay(plane: ControlPlane, programs: Mapping[str, Path]) -> int:
    """Until a signal comes, or until one of the programs ends."""
    print(f"export KUBECONFIG={plane.kubeconfig}")
    print(f"kubectl of the same version: {programs['kubectl']}")
    print("Ctrl-C stops it and removes its data.", flush=True)
    while True:
        plane.processes.check()
        sleep(_LOOK_SECONDS)


def _with_it(command: list[str], plane: ControlPlane) -> int:
    sys.stdout.flush()
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}  # noqa: TID251 - passed on
    # A session of its own: it gets one interrupt, from us, and may clean up before we end.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    plane.processes.check()  # a control plane that broke down proves nothing
    return code


if __name__ == "__main__":
    main()
