"""`python -m tests.cluster.control_plane`: a control plane until Ctrl-C, or for one command.

With a command after `--`, that command runs with KUBECONFIG set, and its exit code is ours.
With `--node` there is also a node that starts pods; that needs root.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Final

from tests.cluster.control_plane.control_plane import ControlPlane, running
from tests.cluster.control_plane.images import SIDECAR, build_images
from tests.cluster.control_plane.network import node_network
from tests.cluster.control_plane.node import node
from tests.cluster.control_plane.processes import ProcessFailed
from tests.cluster.control_plane.programs import (
    ETCD,
    KUBERNETES,
    CannotBuild,
    build_all,
    cache_folder,
)
from tests.cluster.control_plane.requirements import check_node_requirements

EXIT_BROKEN: Final = 1
EXIT_INTERRUPTED: Final = 130

_LOOK_SECONDS: Final = 1.0
_END_SECONDS: Final = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.control_plane")
    parser.add_argument("--node", action="store_true", help="add a node that starts pods")
    parser.add_argument("command", nargs="*", help="run this with KUBECONFIG set, then end")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        sys.exit(_run(given.command, with_node=given.node))
    except KeyboardInterrupt:
        print("\nEverything has been stopped.")
        sys.exit(EXIT_INTERRUPTED if given.command else 0)
    except (CannotBuild, ProcessFailed, subprocess.CalledProcessError) as problem:
        print(problem, file=sys.stderr)
        sys.exit(EXIT_BROKEN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Every signal ends us as Ctrl-C does, so that what we started ends too."""
    raise KeyboardInterrupt


def _run(command: list[str], *, with_node: bool) -> int:
    if with_node:
        check_node_requirements()
    programs = build_all(cache_folder(os.environ), node=with_node)  # noqa: TID251 - XDG_CACHE_HOME
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenward-cluster-")))
        begun = monotonic()
        if with_node:
            running_cluster = _enter_with_node(stack, programs, folder)
        else:
            plane = stack.enter_context(running(programs, folder))
            running_cluster = _Cluster(_variables(plane), plane.processes.check)
        seconds = monotonic() - begun
        print(f"Kubernetes {KUBERNETES.version} on etcd {ETCD.version} is up, {seconds:.1f} s")
        if command:
            return _with_it(command, running_cluster)
        return _stay(running_cluster, programs)


@dataclass(frozen=True)
class _Cluster:
    """The variables by which a command finds the cluster; `check` raises when a program ended."""

    variables: Mapping[str, str]
    check: Callable[[], None]


def _variables(plane: ControlPlane) -> dict[str, str]:
    return {"KUBECONFIG": str(plane.kubeconfig), "TOKENWARD_TEST_AUDIT_LOG": str(plane.audit_log)}


def _enter_with_node(stack: ExitStack, programs: Mapping[str, Path], folder: Path) -> _Cluster:
    images = build_images(folder, folder)
    network = stack.enter_context(node_network())
    plane = stack.enter_context(running(programs, folder, network.host_address))
    processes = stack.enter_context(node(plane, network, programs, list(images.values())))

    def check() -> None:
        plane.processes.check()
        processes.check()

    variables = {
        **_variables(plane),
        "TOKENWARD_TEST_SIDECAR_IMAGE": images[SIDECAR].by_digest,
        "TOKENWARD_TEST_IMAGES": " ".join(one.by_digest for one in images.values()),
        "TOKENWARD_SIDECAR_IMAGE": images[SIDECAR].by_digest,  # for `make demo-cluster`
    }
    return _Cluster(variables, check)


def _stay(cluster: _Cluster, programs: Mapping[str, Path]) -> int:
    """Until a signal comes, or until one of the programs ends."""
    for name, value in cluster.variables.items():
        print(f"export {name}={value}")
    print(f"kubectl of the same version: {programs['kubectl']}")
    print("Ctrl-C stops it and removes its data.", flush=True)
    while True:
        cluster.check()
        sleep(_LOOK_SECONDS)


def _with_it(command: list[str], cluster: _Cluster) -> int:
    sys.stdout.flush()
    environment = {**os.environ, **cluster.variables}  # noqa: TID251 - passed on
    # A session of its own: it gets one interrupt, from us, and may clean up before we end. So does
    # what it started: a shell passes none on.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        _end(process)
        raise
    cluster.check()  # a cluster that broke down proves nothing
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    # A shell's background jobs ignore interrupts, and what they start does too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            return


if __name__ == "__main__":
    main()
